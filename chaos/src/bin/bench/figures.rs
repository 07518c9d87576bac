//! Medians, their spread, and the table of them.

use comfy_table::{CellAlignment, Table};

/// What is promised of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Of 99 samples in a hundred, not of the median.
    NearlyAllAtMost(f64),
    /// Stands there for comparison.
    None,
}

/// One row: a figure's samples, in its unit.
struct Figure {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    target: Target,
}

/// All that was measured, in the order of measuring.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a figure and prints it: a bench is long, and its reader curious.
    pub fn add(&mut self, what: impl Into<String>, unit: &'static str, mut samples: Vec<f64>, target: Target) {
        samples.sort_by(f64::total_cmp);
        let figure = Figure { what: what.into(), unit, samples, target };
        println!("{}: {} (99 %: {})", figure.what, figure.median(), short(quantile(&figure.samples, 0.99)));
        self.0.push(figure);
    }

    /// Prints the table.
    pub fn print(&self) {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["", "median", "10 % … 90 %", "99 %", "least … most", "n", "promised", ""]);
        for figure in &self.0 {
            let (promised, kept) = figure.promise();
            table.add_row([
                figure.what.clone(),
                figure.median(),
                format!("{} … {}", short(quantile(&figure.samples, 0.1)), short(quantile(&figure.samples, 0.9))),
                short(quantile(&figure.samples, 0.99)),
                format!("{} … {}", short(quantile(&figure.samples, 0.0)), short(quantile(&figure.samples, 1.0))),
                figure.samples.len().to_string(),
                promised,
                kept.into(),
            ]);
        }
        for column in 1..=5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\n{table}");
    }
}

impl Figure {
    fn median(&self) -> String {
        format!("{} {}", short(quantile(&self.samples, 0.5)), self.unit)
    }

    fn promise(&self) -> (String, &'static str) {
        let (median, nearly_all) = (quantile(&self.samples, 0.5), quantile(&self.samples, 0.99));
        let (sign, limit, kept) = match self.target {
            Target::AtMost(limit) => ("≤", limit, median <= limit),
            Target::AtLeast(limit) => ("≥", limit, median >= limit),
            Target::NearlyAllAtMost(limit) => ("99 % ≤", limit, nearly_all <= limit),
            Target::None => return (String::new(), ""),
        };
        (format!("{sign} {} {}", short(limit), self.unit), if kept { "kept" } else { "MISSED" })
    }
}

/// The sample below which this share of all lies (nearest rank); no samples give no number.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// Three digits are as many as mean anything here.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.5), 10.0);
        assert_eq!(quantile(&samples, 0.0), 1.0);
        assert_eq!(quantile(&samples, 0.9), 18.0);
        assert_eq!(quantile(&samples, 1.0), 20.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
