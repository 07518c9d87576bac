//! What is wrong with the wire: a pure description, and the nftables rules that make it so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The faults in force between machines, by machine number. Each is one-way: from, to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    cuts: BTreeSet<(usize, usize)>,
    loss: BTreeMap<(usize, usize), u8>,
}

impl Faults {
    /// Nothing passes from one machine to another; the way back stays open.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Nothing passes between two machines.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// `percent` of the packets from one machine to another are lost; 0 ends it.
    pub fn lose(&mut self, from: usize, to: usize, percent: u8) {
        match percent {
            0 => self.loss.remove(&(from, to)),
            _ => self.loss.insert((from, to), percent.min(100)),
        };
    }

    /// The wire between two machines is whole again.
    pub fn heal(&mut self, a: usize, b: usize) {
        for pair in [(a, b), (b, a)] {
            self.cuts.remove(&pair);
            self.loss.remove(&pair);
        }
    }

    /// The whole ruleset of the bridge, to be loaded as one transaction: there is no moment at
    /// which half of a partition holds.
    pub fn rules(&self) -> String {
        // Naming the table before deleting it makes the deletion right the first time, too.
        let mut rules = String::from("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n");
        rules.push_str("  chain forward {\n    type filter hook forward priority 0; policy accept;\n");
        for (from, to) in &self.cuts {
            writeln!(rules, "    iifname \"{}\" oifname \"{}\" drop", port(*from), port(*to)).ok();
        }
        for ((from, to), percent) in &self.loss {
            let ends = format!("iifname \"{}\" oifname \"{}\"", port(*from), port(*to));
            writeln!(rules, "    {ends} numgen random mod 100 < {percent} drop").ok();
        }
        rules.push_str("  }\n}\n");
        rules
    }
}

/// The name of a machine's end of its wire at the bridge.
pub(crate) fn port(machine: usize) -> String {
    format!("m{}", machine + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_two_rules_and_healing_takes_both_away() {
        let whole = Faults::default().rules();
        let mut faults = Faults::default();
        faults.cut(0, 2);
        let rules = faults.rules();
        assert!(rules.contains(r#"iifname "m1" oifname "m3" drop"#), "{rules}");
        assert!(rules.contains(r#"iifname "m3" oifname "m1" drop"#), "{rules}");
        faults.heal(2, 0);
        assert_eq!(faults.rules(), whole);
    }

    #[test]
    fn loss_is_one_way_and_ends_at_zero() {
        let mut faults = Faults::default();
        faults.lose(1, 0, 20);
        let rules = faults.rules();
        assert!(rules.contains(r#"iifname "m2" oifname "m1" numgen random mod 100 < 20 drop"#), "{rules}");
        assert!(!rules.contains(r#"iifname "m1" oifname "m2""#), "{rules}");
        faults.lose(1, 0, 0);
        assert_eq!(faults, Faults::default());
    }
}
