//! Variables in an app file: `$NAME`, `${NAME}` and what Compose can say of their absence.

use super::tree::{Node, Value};

/// So deep a default may hold variables whose defaults hold variables.
const DEPTH_MAX: u32 = 8;

/// Why text cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A dollar sign that begins nothing.
    Malformed,
    /// `${NAME:?message}`, and there is no such variable.
    Required { name: String, message: String },
    /// Defaults within defaults within defaults.
    TooDeep,
}

/// Fills the variables of a text in; `$$` is a dollar sign. Names that are written without a word for their absence and
/// that there are not are empty, and added to `unset`.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn fill(text: &str, look: &dyn Fn(&str) -> Option<String>, unset: &mut Vec<String>) -> Result<String, Fault> {
    fill_within(text, look, unset, 0)
}

fn fill_within(
    text: &str,
    look: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: u32,
) -> Result<String, Fault> {
    if depth > DEPTH_MAX {
        return Err(Fault::TooDeep);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or(Fault::Malformed)?;
            let inner = &after[..end];
            rest = &after[end + 1..];
            filled.push_str(&braced(inner, look, unset, depth)?);
        } else {
            let length = name_length(rest);
            if length == 0 {
                return Err(Fault::Malformed);
            }
            let (name, after) = rest.split_at(length);
            rest = after;
            filled.push_str(&plain(name, look, unset));
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What is between the braces.
fn braced(
    inner: &str,
    look: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: u32,
) -> Result<String, Fault> {
    let (name, rest) = inner.split_at(name_length(inner));
    if name.is_empty() {
        return Err(Fault::Malformed);
    }
    if rest.is_empty() {
        return Ok(plain(name, look, unset));
    }
    // With the colon an empty value is as good as none.
    let (colon, rest) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
    let value = look(name).filter(|value| !(colon && value.is_empty()));
    let mut word = |word: &str| fill_within(word, look, unset, depth + 1);
    if let Some(default) = rest.strip_prefix('-') {
        return value.map_or_else(|| word(default), Ok);
    }
    if let Some(replacement) = rest.strip_prefix('+') {
        return if value.is_some() { word(replacement) } else { Ok(String::new()) };
    }
    if let Some(message) = rest.strip_prefix('?') {
        return match value {
            Some(value) => Ok(value),
            None => Err(Fault::Required { name: name.into(), message: word(message)? }),
        };
    }
    Err(Fault::Malformed)
}

fn plain(name: &str, look: &dyn Fn(&str) -> Option<String>, unset: &mut Vec<String>) -> String {
    look(name).unwrap_or_else(|| {
        if !unset.iter().any(|known| known == name) {
            unset.push(name.to_string());
        }
        String::new()
    })
}

/// How much of the beginning is a name: letters, digits and underscores, no digit first.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the brace closes that was opened before; `${` within opens another.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

/// What is said of a text that was filled in, and of one that could not be.
pub enum Told<'a> {
    Unset(&'a str),
    Fault(&'a Fault),
    /// All values together have become too long.
    TooMuch,
}

/// Fills in every single value of a tree; keys stay as they are. `room` is how many bytes all values may still have.
pub fn tree(
    node: &mut Node,
    look: &dyn Fn(&str) -> Option<String>,
    room: &mut usize,
    tell: &mut dyn FnMut(&Node, Told<'_>),
) {
    match &mut node.value {
        Value::Null | Value::Reset => {}
        Value::Scalar(text) => {
            let mut unset = Vec::new();
            let filled = match text.contains('$') {
                true => fill(text, look, &mut unset),
                false => Ok(std::mem::take(text)),
            };
            match filled {
                Ok(filled) if filled.len() <= *room => {
                    *room -= filled.len();
                    node.value = Value::Scalar(filled);
                }
                Ok(_) => tell(node, Told::TooMuch),
                Err(fault) => tell(node, Told::Fault(&fault)),
            }
            for name in &unset {
                tell(node, Told::Unset(name));
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| tree(item, look, room, tell)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| tree(&mut entry.value, look, room, tell)),
        Value::Override(value) => {
            let mut inner = Node { place: node.place, value: std::mem::replace(value, Value::Null) };
            tree(&mut inner, look, room, tell);
            **value = inner.value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, Fault> {
        let look = |name: &str| match name {
            "A" => Some("a".to_string()),
            "_b1" => Some("b".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        fill(text, &look, &mut Vec::new())
    }

    #[test]
    fn every_form_of_compose_is_filled_in() {
        for (text, want) in [
            ("", ""),
            ("no dollar", "no dollar"),
            ("$A", "a"),
            ("${A}", "a"),
            ("x$A.y", "xa.y"),
            ("$_b1-$A", "b-a"),
            ("$$A $$$A $$$$", "$A $a $$"),
            ("${NONE}|$NONE|", "||"),
            ("${A:-x}${NONE:-x}${EMPTY:-x}", "axx"),
            ("${A-x}${NONE-x}${EMPTY-x}", "ax"),
            ("${A:+x}${NONE:+x}${EMPTY:+x}", "x"),
            ("${A+x}${NONE+x}${EMPTY+x}", "xx"),
            ("${A:?m}${A?m}${EMPTY?m}", "aa"),
            ("${NONE:-${NONE:-$A}}", "a"),
            ("${NONE:-${A}/x}y", "a/xy"),
            ("${NONE:-a b:c}", "a b:c"),
            ("${NONE:-$$}", "$"),
            ("${A:-${NONE:?not looked at}}", "a"),
            ("größe ${NONE:-größe}", "größe größe"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in ["$", "$ ", "a$", "$1", "${", "${}", "${A", "${1}", "${A!x}", "${A:}", "${ A}", "${A b}", "$é"] {
            assert_eq!(filled(text), Err(Fault::Malformed), "{text}");
        }
        let required = |name: &str, message: &str| Fault::Required { name: name.into(), message: message.into() };
        assert_eq!(filled("${NONE:?set it, $A}"), Err(required("NONE", "set it, a")));
        assert_eq!(filled("${EMPTY:?}"), Err(required("EMPTY", "")));
        let deep = format!("{}x{}", "${N:-".repeat(20), "}".repeat(20));
        assert_eq!(filled(&deep), Err(Fault::TooDeep));
    }

    #[test]
    fn names_that_nobody_set_are_told_once() {
        let mut unset = Vec::new();
        fill("$X ${Y} ${X} ${Z:-}", &|_| None, &mut unset).unwrap();
        assert_eq!(unset, ["X", "Y"]);
    }
}
