//! `highwater validate` and `highwater explain`: what holds for a script or graph, without running it.

use std::fmt::Write;

use expr::{Changelog, Facts};
use graph::{Node, Period, Problem};
use miette::Severity;
use serde_json::{Value, json};

use crate::arguments::{Answer, ScriptArguments, ValidateArguments};
use crate::output::{answer, visible};
use crate::roots::Roots;
use crate::script::{Refused, Script};
use crate::{Exit, problems};

pub fn validate(arguments: &ValidateArguments) -> Exit {
    let read = Script::read(&arguments.script).and_then(|script| {
        let roots = Roots::of(&arguments.roots)?;
        if arguments.output == Answer::Text {
            roots.warn();
        }
        script.check_anywhere(&roots).map(|notes| (script, notes))
    });
    match (read, arguments.output) {
        (Ok((script, notes)), Answer::Text) => {
            problems::show(&[script.warnings(), notes].concat(), Severity::Warning, &script.source);
            answer(validation(&script).as_bytes())
        }
        (Ok((script, notes)), Answer::Json) => answer_json(&valid(&script, &notes), Exit::Done),
        (Err(Refused::Nothing { .. }), Answer::Json) => {
            answer_json(&json!({"valid": true, "bounded": true, "operators": [], "warnings": []}), Exit::Done)
        }
        (Err(Refused::Wrong { problems, source }), Answer::Json) => {
            let problems: Vec<Problem> = problems.iter().map(|problem| source.secrets.hidden(problem)).collect();
            answer_json(&json!({"valid": false, "problems": problems}), Exit::Invalid)
        }
        (Err(refused), _) => {
            refused.show();
            if matches!(refused, Refused::Nothing { .. }) { Exit::Done } else { Exit::Invalid }
        }
    }
}

pub fn explain(arguments: &ScriptArguments) -> Exit {
    match Script::read(arguments) {
        Ok(script) => answer(explanation(&script).as_bytes()),
        Err(refused) => {
            refused.show();
            if matches!(refused, Refused::Nothing { .. }) { Exit::Done } else { Exit::Invalid }
        }
    }
}

/// The graph as a tree, then its stages.
pub fn explanation(script: &Script) -> String {
    let workers = script.workers();
    let graph = sql::explain(&script.graph, &script.analysis);
    let shared = if workers == 1 { "1 worker".to_string() } else { format!("{workers} workers") };
    format!("{graph}\nstages, on {shared}:\n{}", script.plan)
}

fn answer_json(value: &Value, exit: Exit) -> Exit {
    match answer(format!("{value:#}\n").as_bytes()) {
        Exit::Done => exit,
        failed => failed,
    }
}

/// The verdict, and per operator what leaves it.
fn validation(script: &Script) -> String {
    let bounded = if script.analysis.bounded { "bounded" } else { "unbounded" };
    let nodes = script.graph.nodes.len();
    let mut text =
        format!("{} is valid: {bounded}, {nodes} operator{}\n", script.source.name, if nodes == 1 { "" } else { "s" });
    for (node, facts) in operators(script) {
        let inputs = if node.inputs.is_empty() { String::new() } else { format!(" <- {}", node.inputs.join(", ")) };
        let _ = writeln!(text, "\n{} ({}){}", visible(&node.id), node.operator.type_name(), visible(&inputs));
        if let Some(facts) = facts {
            let time = match &facts.time {
                Some(time) => format!("time {} in steps of {}", time.column, Period::from_us(time.unit_us)),
                None => "no time attribute".to_string(),
            };
            let bounded = if facts.bounded { "bounded" } else { "unbounded" };
            let columns = if facts.schema.columns.is_empty() {
                String::new()
            } else {
                format!("  {}\n", visible(&facts.schema.to_string()))
            };
            let _ = writeln!(text, "{columns}  {bounded}, {}, {}", facts.changelog, visible(&time));
        }
    }
    text
}

/// Inputs before their readers.
fn operators(script: &Script) -> impl Iterator<Item = (&Node, Option<&Facts>)> {
    let order = script.graph.ordered().unwrap_or_default();
    order.into_iter().map(|index| {
        let node = &script.graph.nodes[index];
        (node, script.analysis.facts.get(&node.id))
    })
}

fn valid(script: &Script, notes: &[Problem]) -> Value {
    let operator = |(node, facts): (&Node, Option<&Facts>)| {
        let mut operator = json!({"id": node.id, "type": node.operator.type_name(), "inputs": node.inputs});
        if let (Some(facts), Some(object)) = (facts, operator.as_object_mut()) {
            let time = facts.time.as_ref().map(|time| json!({"column": time.column, "unit_us": time.unit_us}));
            let (changelog, key) = match &facts.changelog {
                Changelog::InsertOnly => ("insert_only", None),
                Changelog::Retract => ("retract", None),
                Changelog::Upsert(key) => ("upsert", Some(key)),
            };
            object.insert("columns".into(), json!(facts.schema.columns));
            object.insert("bounded".into(), facts.bounded.into());
            object.insert("time".into(), json!(time));
            object.insert("changelog".into(), changelog.into());
            if let Some(key) = key {
                object.insert("key".into(), json!(key));
            }
        }
        operator
    };
    let hidden = |problem: &Problem| script.source.secrets.hidden(problem);
    let warnings: Vec<Problem> = script.warnings().iter().chain(notes).map(hidden).collect();
    json!({
        "valid": true,
        "bounded": script.analysis.bounded,
        "operators": operators(script).map(operator).collect::<Vec<_>>(),
        "warnings": warnings,
    })
}
