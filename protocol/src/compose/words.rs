//! Splitting a command line into words, as a shell does, without running one.

/// Why a command line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclosed(pub char);

/// Splits by blanks; single quotes keep everything, double quotes keep all but `\"`, `\\`, `` \` ``
/// and `\$`, and a backslash keeps the next character (POSIX, 2.2 Quoting). Nothing is expanded.
pub fn split(line: &str) -> Result<Vec<String>, Unclosed> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(Unclosed('\'')),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => match rest.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some('\n') => {}
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(Unclosed('"')),
                        },
                        Some(c) => word.push(c),
                        None => return Err(Unclosed('"')),
                    }
                }
            }
            '\\' => match rest.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(Unclosed('\\')),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_shells() {
        for (line, words) in [
            ("", vec![]),
            ("  \t ", vec![]),
            ("sleep 5", vec!["sleep", "5"]),
            ("sh -c 'echo \"a b\"; exit 3'", vec!["sh", "-c", "echo \"a b\"; exit 3"]),
            (r#"a"b c"d 'e'f"#, vec!["ab cd", "ef"]),
            (r#"echo "a\"b\n\\""#, vec!["echo", r#"a"b\n\"#]),
            (r"a\ b \\", vec!["a b", r"\"]),
            ("'' \"\"", vec!["", ""]),
            ("a \\\n b", vec!["a", "b"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
    }

    #[test]
    fn what_is_opened_must_be_closed() {
        assert_eq!(split("echo 'a"), Err(Unclosed('\'')));
        assert_eq!(split("echo \"a"), Err(Unclosed('"')));
        assert_eq!(split("echo \"a\\"), Err(Unclosed('"')));
        assert_eq!(split("echo a\\"), Err(Unclosed('\\')));
    }
}
