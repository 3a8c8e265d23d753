//! Limits on the size of expressions, checked on the tokens, before anything recurses over them.
//!
//! The parser, the binder, the drop of a tree and its evaluation recurse to the depth of the tree. The depth is at most the number of
//! operators that stand at one level of parentheses, added up over the levels that are open; that sum is counted here without recursion.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::error::ExprError;

/// Operators in a chain, with those of the levels around it.
pub const CHAIN_MAX: usize = 1_000;
/// Levels of parentheses, brackets and CASE.
pub const DEPTH_MAX: usize = 45;
/// For `Parser::with_recursion_limit`: more than [`check_tokens`] lets through, so that the parser's own limit (which it reports as other
/// mistakes where it tries several readings) is never met.
pub const PARSER_RECURSION: usize = 128;
/// Levels and prefix operators that are open at one place, counted as the parser recurses.
const RECURSION_MAX: usize = 100;
/// UNION, INTERSECT, EXCEPT and JOIN in one statement.
pub const RELATIONS_MAX: usize = 300;
/// Tokens of one text, white space not counted: room for lists of 100,000 values.
pub const TOKENS_MAX: usize = 250_000;
/// Depth of what remains after chains of AND, OR and || have become flat.
pub(crate) const TREE_DEPTH_MAX: u32 = 250;

/// Operations per row; parts that an operator evaluates twice count twice.
pub(crate) const TREE_SIZE_MAX: u32 = 20_000;

pub(crate) fn too_complex(message: String, span: Span) -> ExprError {
    ExprError::new("query_too_complex", message)
        .hint(
            "compute parts of it before, in a subquery or a projection; many comparisons of one value are one IN (...)",
        )
        .at(span)
}

/// One level of parentheses: operators since the last comma, the deepest operand among them, and the deepest of what the commas ended.
#[derive(Clone, Copy, Default)]
struct Level {
    operators: usize,
    operand: usize,
    finished: usize,
    /// Operators since the last operand: `- NOT -`; the parser recurses for each.
    prefixes: usize,
}

impl Level {
    fn depth(self) -> usize {
        self.finished.max(self.operators + self.operand)
    }

    fn comma(&mut self) {
        *self = Level { finished: self.depth(), ..Level::default() };
    }
}

/// Refuses texts whose expressions nest or chain too deep. For a whole script as well as for one expression.
pub fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), ExprError> {
    let mut open: Vec<Level> = vec![Level::default()];
    let (mut count, mut relations) = (0usize, 0usize);
    for token in tokens {
        let mut operators = 0usize;
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => open.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut open),
            Token::Comma => comma(&mut open),
            Token::SemiColon => {
                open = vec![Level::default()];
                (count, relations) = (0, 0);
            }
            Token::Word(word) => match word.keyword {
                Keyword::CASE => open.push(Level::default()),
                Keyword::END => close(&mut open),
                Keyword::SELECT
                | Keyword::FROM
                | Keyword::WHERE
                | Keyword::HAVING
                | Keyword::BY
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE
                | Keyword::AS
                | Keyword::VALUES
                | Keyword::ON => comma(&mut open),
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::INTERVAL
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::DIV
                | Keyword::XOR
                | Keyword::RLIKE
                | Keyword::REGEXP => operators = 1,
                // A SELECT between them would end the chain, but they lean on each other over the whole statement.
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => relations += 1,
                _ => {}
            },
            Token::Number(..) | Token::SingleQuotedString(_) | Token::EOF | Token::Period => {}
            // Everything else that is not a word or a literal is an operator, prefix or infix.
            other => {
                operators = usize::from(!matches!(
                    other,
                    Token::DoubleQuotedString(_) | Token::HexStringLiteral(_) | Token::Char(_)
                ))
            }
        }
        count += 1;
        let (mut depth, mut recursion) = (0, 0);
        if let Some(level) = open.last_mut() {
            level.operators += operators;
            level.prefixes = if operators > 0 { level.prefixes + 1 } else { level.prefixes };
            depth = level.depth();
            // Only where something opens or one more prefix stands can the recursion grow.
            if operators > 0 || level.operators + level.operand + level.finished == 0 {
                recursion = open.iter().map(|level| 1 + level.prefixes).sum();
            }
            let opens = matches!(&token.token, Token::Word(word) if word.keyword == Keyword::CASE)
                || matches!(token.token, Token::LParen | Token::LBracket | Token::LBrace);
            if operators == 0
                && !opens
                && let Some(level) = open.last_mut()
            {
                level.prefixes = 0;
            }
        }
        if recursion > RECURSION_MAX {
            return Err(too_complex("the expression nests too deep".into(), token.span));
        }
        if count > TOKENS_MAX {
            return Err(too_complex(format!("the text has more than {TOKENS_MAX} words and signs"), token.span));
        }
        if open.len() > DEPTH_MAX {
            return Err(too_complex(format!("the expression nests more than {DEPTH_MAX} levels deep"), token.span));
        }
        if relations > RELATIONS_MAX {
            let message = format!("the statement combines more than {RELATIONS_MAX} queries");
            return Err(too_complex(message, token.span));
        }
        if depth > CHAIN_MAX {
            return Err(too_complex(format!("the expression chains more than {CHAIN_MAX} operators"), token.span));
        }
    }
    Ok(())
}

/// Ends a level, which is an operand of the one around it. The outermost stays: a text may close more than it opened.
fn close(open: &mut Vec<Level>) {
    if open.len() > 1 {
        let depth = open.pop().unwrap_or_default().depth() + 1;
        if let Some(level) = open.last_mut() {
            level.operand = level.operand.max(depth);
        }
    }
}

fn comma(open: &mut [Level]) {
    if let Some(level) = open.last_mut() {
        level.comma();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use datafusion_sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    #[test]
    fn statements_are_counted_apart_and_their_queries_together() {
        let check =
            |text: &str| check_tokens(&Tokenizer::new(&crate::ExprDialect, text).tokenize_with_location().unwrap());
        let select = format!("SELECT {} FROM t WHERE a = 1 AND b = 2", vec!["a + b * c"; 800].join(", "));
        assert_eq!(check(&format!("{select}; {select}; {select}")), Ok(()));
        assert_eq!(check(&vec!["SELECT a FROM t"; 200].join(" UNION ALL ")), Ok(()));
        assert_eq!(check(&vec!["SELECT a FROM t"; 5_000].join(" UNION ALL ")).unwrap_err().code, "query_too_complex");
        assert_eq!(check(&format!("SELECT a {}", "FROM (SELECT a ".repeat(60))).unwrap_err().code, "query_too_complex");
        assert_eq!(check(&format!("SELECT {}", vec!["a"; 1_500].join(" + "))).unwrap_err().code, "query_too_complex");
    }
}
