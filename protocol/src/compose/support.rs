//! What to say of keys and words that nobody knows.

use super::keys::Level;
use super::quantity::shown;

/// What to say of a key that the specification does not have here: a message, and a way out.
pub fn unknown(level: &Level, key: &str) -> (String, Option<String>) {
    if key.starts_with("x-rialto") && level.name != "a service" {
        return ("x-rialto is a service's".into(), Some("write it beside image".into()));
    }
    let hint = match (level.name, key) {
        ("reservations", "pids") => "write it under limits: processes are limited, not reserved".into(),
        ("limits", "devices") => "write it under reservations: devices are set aside, not limited".into(),
        _ => {
            let honoured = level.honoured();
            let all: Vec<&str> = level.keys.iter().map(|key| key.name).collect();
            match nearest(key, &honoured).or_else(|| nearest(key, &all)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("{} takes {}", level.name, honoured.join(", ")),
            }
        }
    };
    ("unknown key".into(), Some(hint))
}

/// The candidate that is nearest to what was written, where one is near enough to be meant.
pub fn nearest<'a>(written: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // Long keys come from no slip of a finger, and the distance costs their product.
    if written.chars().count() > 40 {
        return None;
    }
    let near = |candidate: &&str| {
        let most = if candidate.len() <= 4 { 1 } else { 2 };
        let steps = distance(&written.to_lowercase(), &candidate.to_lowercase());
        (steps <= most).then_some(steps)
    };
    candidates.iter().filter_map(|c| near(c).map(|steps| (steps, *c))).min().map(|(_, candidate)| candidate)
}

/// What to say of a word that is none of those that may stand there.
pub fn none_of(written: &str, words: &[&str]) -> String {
    let near = nearest(written, words).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("'{}' is none of {}{near}", shown(written), words.join(", "))
}

/// Edit distance where two neighbours that changed places count as one step (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_guessed() {
        for (written, meant) in [
            ("imgae", Some("image")),
            ("Image", Some("image")),
            ("comand", Some("command")),
            ("enviroment", Some("environment")),
            ("port", Some("ports")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &super::super::keys::SERVICE.honoured()), meant, "{written}");
        }
    }
}
