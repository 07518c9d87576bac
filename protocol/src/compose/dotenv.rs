//! Files of variables, one `NAME=VALUE` a line: `.env` and what `env_file` names.

use super::interpolate::{self, Fault};

/// The most variables of one file.
pub const VARIABLES_MAX: usize = 10_000;

/// A variable, and its value where the file gives one; a name alone is taken from the environment.
pub type Variable = (String, Option<String>);

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub line: u32,
    pub message: String,
}

/// Reads such a file as Compose does. Single quotes keep all, double quotes know `\n`, `\r`, `\t`, `\"`, `\\` and `\$`, both
/// may hold several lines; variables are filled in outside of single quotes, from the lines above and then by `look`.
/// `raw` takes everything behind the `=` as it is.
///
/// # Errors
///
/// The first line that says nothing.
pub fn parse(text: &str, raw: bool, look: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Variable>, Broken> {
    let mut variables: Vec<Variable> = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let begun = line;
        let wrong = move |message: &str| Broken { line: begun, message: message.into() };
        let (here, below) = rest.split_once('\n').unwrap_or((rest, ""));
        let written = here.trim();
        if written.is_empty() || written.starts_with('#') {
            rest = below;
            line += 1;
            continue;
        }
        if variables.len() == VARIABLES_MAX {
            return Err(wrong("there are too many variables"));
        }
        let written = written.strip_prefix("export ").map_or(written, str::trim_start);
        let end = written.find(['=', ':']).filter(|_| !raw).or_else(|| written.find('=')).unwrap_or(written.len());
        let name = written[..end].trim_end();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0' || "'\"$".contains(c)) {
            return Err(wrong("this is no NAME=VALUE"));
        }
        let Some(value) = written.get(end + 1..) else {
            variables.push((name.into(), None));
            rest = below;
            line += 1;
            continue;
        };
        if raw {
            // Only the end of the line is no part of the value.
            let value = here.split_once('=').map_or("", |(_, value)| value).trim_end_matches('\r');
            variables.push((name.into(), Some(value.into())));
            rest = below;
            line += 1;
            continue;
        }
        let value = value.trim_start();
        let (value, is_literal, after) = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                // Quoted text may go on below: look for its end in all that is left.
                let opened = here.trim_end().len() - value.len() + 1;
                let tail = &rest[opened..];
                let end = closing(tail, quote).ok_or_else(|| wrong("the quotation marks are not closed"))?;
                let after = tail[end + 1..].split_once('\n').map_or((&tail[end + 1..], ""), |both| both);
                if !after.0.trim().is_empty() && !after.0.trim_start().starts_with('#') {
                    return Err(wrong("something stands behind the quotation marks"));
                }
                line += tail[..end].matches('\n').count() as u32;
                let value = &tail[..end];
                (if quote == '"' { unescaped(value) } else { value.to_string() }, quote == '\'', after.1)
            }
            _ => (uncommented(value).to_string(), false, below),
        };
        let value = if is_literal {
            value
        } else {
            let known = &variables;
            let look = |name: &str| {
                let above = known.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.clone());
                above.or_else(|| look(name))
            };
            interpolate::fill(&value, &look, &mut Vec::new()).map_err(|fault| match fault {
                Fault::Required { name, message } => wrong(&format!("{name} is needed: {message}")),
                Fault::Malformed | Fault::TooDeep => wrong("a $ begins no variable; within '…' it is a dollar sign"),
            })?
        };
        if value.contains('\0') {
            return Err(wrong("a value cannot hold a NUL character"));
        }
        variables.push((name.into(), Some(value)));
        rest = after;
        line += 1;
    }
    Ok(variables)
}

/// Where the quotation ends that was opened before; a backslash in double quotes keeps the next character.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// `\$` becomes `$$`, which filling in makes a dollar sign again.
fn unescaped(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('n') => read.push('\n'),
                Some('r') => read.push('\r'),
                Some('t') => read.push('\t'),
                Some('$') => read.push_str("$$"),
                Some(c @ ('"' | '\\')) => read.push(c),
                Some(c) => read.extend(['\\', c]),
                None => read.push('\\'),
            },
            c => read.push(c),
        }
    }
    read
}

/// Without the comment, which a blank sets apart.
fn uncommented(value: &str) -> &str {
    let bytes = value.as_bytes();
    let starts = |at: &usize| bytes[*at] == b'#' && (*at == 0 || bytes[at - 1].is_ascii_whitespace());
    let end = (0..bytes.len()).find(starts).unwrap_or(bytes.len());
    value[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Variable>, Broken> {
        parse(text, false, &|name| (name == "HOME").then(|| "/root".to_string()))
    }

    #[test]
    fn values_are_read_as_compose_reads_them() {
        let text = "\u{feff}# a comment\n\nA=1\nexport B = two words # said\r\nC='$A # #'\nD=\"x\\ty\\$A $A\"\nE=$A/$HOME\nF=\nG\nH: yaml\nI=a#b\nJ=\"one\ntwo\" # both\nK='it\nis'\nL=${NONE:-x}\nM=\"A\"\nN=A=B\n";
        let set: Vec<(String, Option<String>)> = read(text).unwrap();
        let want = [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("$A # #")),
            ("D", Some("x\ty$A 1")),
            ("E", Some("1//root")),
            ("F", Some("")),
            ("G", None),
            ("H", Some("yaml")),
            ("I", Some("a#b")),
            ("J", Some("one\ntwo")),
            ("K", Some("it\nis")),
            ("L", Some("x")),
            ("M", Some("A")),
            ("N", Some("A=B")),
        ];
        let want: Vec<_> = want.iter().map(|(name, value)| (name.to_string(), value.map(str::to_string))).collect();
        assert_eq!(set, want);
        let raw = parse("A='1' # $x \nB\n", true, &|_| None).unwrap();
        assert_eq!(raw, [("A".to_string(), Some("'1' # $x ".to_string())), ("B".to_string(), None)]);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line) in [
            ("A=1\n\n=2\n", 3),
            ("A='1\n2", 1),
            ("A=\"1\n2\"\nB=\"x\" y\n", 3),
            ("A B=1", 1),
            ("A=1\nB=$ x", 2),
            ("A=${B:?is needed}", 1),
        ] {
            assert_eq!(read(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
