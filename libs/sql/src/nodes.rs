//! The nodes of the graph being planned: ids from meaning, equal nodes made once, the SQL that each came from.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Graph, Node, Operator, Schema};
use sha2::{Digest, Sha256};

/// A node's place in [`Nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRef(usize);

impl NodeRef {
    /// Of names that stand over no node.
    pub fn none() -> NodeRef {
        NodeRef(usize::MAX)
    }
}

/// Where a node and its parts stand in the script; a part is a JSON Pointer below the node.
#[derive(Clone, Debug)]
pub struct NodeSpans {
    pub whole: Span,
    pub parts: Vec<(String, Span)>,
}

impl NodeSpans {
    pub fn new(whole: Span) -> NodeSpans {
        NodeSpans { whole, parts: Vec::new() }
    }

    pub fn part(mut self, pointer: impl Into<String>, span: Span) -> NodeSpans {
        self.parts.push((pointer.into(), span));
        self
    }

    /// The span of the longest part that `pointer` lies in.
    pub fn find(&self, pointer: &str) -> Span {
        let within =
            |part: &str| pointer.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let known = |span: &Span| *span != Span::empty();
        let best =
            self.parts.iter().filter(|(part, span)| within(part) && known(span)).max_by_key(|(part, _)| part.len());
        best.map_or(self.whole, |(_, span)| *span)
    }
}

struct Planned {
    node: Node,
    inputs: Vec<NodeRef>,
    schema: Schema,
    spans: NodeSpans,
}

#[derive(Default)]
pub struct Nodes {
    planned: Vec<Planned>,
    by_id: BTreeMap<String, NodeRef>,
}

impl Nodes {
    /// A node whose id follows from what it does to what: equal ones are one node.
    pub fn add(&mut self, operator: Operator, inputs: Vec<NodeRef>, schema: Schema, spans: NodeSpans) -> NodeRef {
        let input_ids: Vec<String> = inputs.iter().map(|input| self.id(*input).to_string()).collect();
        let meaning =
            serde_json::to_string(&(&operator, &input_ids)).expect("an operator has only text keys and finite numbers");
        let hash = format!("{:x?}", Sha256::digest(meaning.as_bytes()).as_slice()).replace(['[', ']', ',', ' '], "");
        let hash: String = hash.chars().take(12).collect();
        self.insert(format!("{}_{hash}", operator.type_name()), operator, inputs, schema, spans)
    }

    /// A node with an id of its own: tables are known by their names.
    pub fn add_named(
        &mut self,
        id: String,
        operator: Operator,
        inputs: Vec<NodeRef>,
        schema: Schema,
        spans: NodeSpans,
    ) -> NodeRef {
        self.insert(id, operator, inputs, schema, spans)
    }

    fn insert(
        &mut self,
        mut id: String,
        operator: Operator,
        inputs: Vec<NodeRef>,
        schema: Schema,
        spans: NodeSpans,
    ) -> NodeRef {
        while let Some(&known) = self.by_id.get(&id) {
            let node = &self.planned[known.0];
            if node.node.operator == operator && node.inputs == inputs {
                return known;
            }
            id.push('_');
        }
        let input_ids = inputs.iter().map(|input| self.id(*input).to_string()).collect();
        let at = NodeRef(self.planned.len());
        self.by_id.insert(id.clone(), at);
        self.planned.push(Planned { node: Node { id, inputs: input_ids, operator }, inputs, schema, spans });
        at
    }

    pub fn len(&self) -> usize {
        self.planned.len()
    }

    pub fn id(&self, at: NodeRef) -> &str {
        &self.planned[at.0].node.id
    }

    pub fn schema(&self, at: NodeRef) -> &Schema {
        &self.planned[at.0].schema
    }

    /// The nodes that `roots` need, inputs first.
    pub fn needed(&self, roots: &[NodeRef]) -> Vec<NodeRef> {
        let mut needed = vec![false; self.planned.len()];
        for root in roots {
            needed[root.0] = true;
        }
        // Inputs are always made before what reads them.
        for at in (0..self.planned.len()).rev() {
            if needed[at] {
                for input in &self.planned[at].inputs {
                    needed[input.0] = true;
                }
            }
        }
        (0..self.planned.len()).filter(|at| needed[*at]).map(NodeRef).collect()
    }

    pub fn operator(&self, at: NodeRef) -> &Operator {
        &self.planned[at.0].node.operator
    }

    /// The graph of what `roots` need, and per node the spans.
    pub fn graph(&self, roots: &[NodeRef]) -> (Graph, Vec<NodeSpans>) {
        let needed = self.needed(roots);
        let nodes = needed.iter().map(|at| self.planned[at.0].node.clone()).collect();
        (Graph::new(nodes), needed.iter().map(|at| self.planned[at.0].spans.clone()).collect())
    }

    /// The planner and the analysis must agree on what every edge carries: the casts of the planner rest on it.
    #[cfg(test)]
    pub fn compare(&self, analysis: &expr::Analysis) {
        for planned in self.planned.iter().filter(|planned| !matches!(planned.node.operator, Operator::Sink(_))) {
            if let Some(facts) = analysis.facts.get(&planned.node.id) {
                assert_eq!(planned.schema, facts.schema, "{:?}", planned.node);
            }
        }
    }
}
