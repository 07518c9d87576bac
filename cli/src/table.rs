//! Tables without lines, as wide as their content.

use comfy_table::{ContentArrangement, Table, presets};

/// Rows under a header; columns that say nothing in any row are left out where `optional` names them.
pub fn table(header: &[&str], optional: &[&str], rows: &[Vec<String>]) -> String {
    let shown: Vec<usize> = (0..header.len())
        .filter(|at| {
            !optional.contains(&header[*at]) || rows.iter().any(|row| row.get(*at).is_some_and(|c| !c.is_empty()))
        })
        .collect();
    let pick = |row: &[String]| -> Vec<String> {
        shown.iter().map(|at| row.get(*at).map(|cell| crate::output::one_line(cell)).unwrap_or_default()).collect()
    };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|at| header[*at]));
    for row in rows {
        table.add_row(pick(row));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// Names and values, one pair a line, the values below each other.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    pairs.iter().map(|(name, value)| format!("{name:width$}{}\n", crate::output::one_line(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_text() {
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        let shown = table(&["NAME", "NOTE", "AGE"], &["NOTE"], &[row(["web", "", "5s"]), row(["a\nb", "", "12d"])]);
        assert_eq!(shown, "NAME  AGE\nweb   5s\na b   12d\n");
    }
}
