//! A table of nftables as a value, and the shortest script that makes one of another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Everything in one table that changes while it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Rules by chain.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Elements by set: the set's type first.
    pub sets: BTreeMap<String, (&'static str, BTreeSet<String>)>,
    /// What the elements of the table's own maps stand for. The maps themselves are always there.
    pub maps: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Ruleset {
    /// The script that turns a table with `before` in it into one with this in it, in one transaction; empty where
    /// nothing changes.
    pub fn script(&self, table: &str, before: &Ruleset) -> String {
        let mut script = String::new();
        let mut say = |line: String| {
            // A string takes whatever is written to it.
            let _ = writeln!(script, "{line}");
        };
        for (name, (kind, elements)) in &self.sets {
            let held = before.sets.get(name).map(|(_, elements)| elements);
            if held.is_none() {
                say(format!("add set {table} {name} {{ type {kind}; }}"));
            }
            let none = BTreeSet::new();
            let held = held.unwrap_or(&none);
            elements_of(held.difference(elements)).into_iter().for_each(|list| {
                say(format!("delete element {table} {name} {list}"));
            });
            elements_of(elements.difference(held)).into_iter().for_each(|list| {
                say(format!("add element {table} {name} {list}"));
            });
        }
        let changed = |name: &&String| before.chains.get(*name) != self.chains.get(*name);
        // All chains are there before any rule goes to one.
        for name in self.chains.keys().filter(|name| !before.chains.contains_key(*name)) {
            say(format!("add chain {table} {name}"));
        }
        for name in self.chains.keys().filter(changed) {
            if before.chains.contains_key(name) {
                say(format!("flush chain {table} {name}"));
            }
            for rule in &self.chains[name] {
                say(format!("add rule {table} {name} {rule}"));
            }
        }
        let names: BTreeSet<&&str> = self.maps.keys().chain(before.maps.keys()).collect();
        for name in names {
            let none = BTreeMap::new();
            let (held, wanted) = (before.maps.get(*name).unwrap_or(&none), self.maps.get(*name).unwrap_or(&none));
            let gone = held.iter().filter(|(key, value)| wanted.get(*key) != Some(value)).map(|(key, _)| key.clone());
            elements_of(gone).into_iter().for_each(|list| say(format!("delete element {table} {name} {list}")));
            let new = wanted.iter().filter(|(key, value)| held.get(*key) != Some(value));
            let new = new.map(|(key, value)| format!("{key} : {value}"));
            elements_of(new).into_iter().for_each(|list| say(format!("add element {table} {name} {list}")));
        }
        // What nothing leads to any more goes last.
        let gone: Vec<&String> = before.chains.keys().filter(|name| !self.chains.contains_key(*name)).collect();
        for name in &gone {
            say(format!("flush chain {table} {name}"));
        }
        for name in &gone {
            say(format!("delete chain {table} {name}"));
        }
        for name in before.sets.keys().filter(|name| !self.sets.contains_key(*name)) {
            say(format!("delete set {table} {name}"));
        }
        script
    }
}

/// A list of elements as it is written, if there are any.
fn elements_of<T: AsRef<str>>(elements: impl Iterator<Item = T>) -> Option<String> {
    let mut list = String::new();
    for element in elements {
        list.push_str(if list.is_empty() { "{ " } else { ", " });
        list.push_str(element.as_ref());
    }
    (!list.is_empty()).then(|| list + " }")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(chain: &str, rule: &str, element: &str) -> Ruleset {
        let mut rules = Ruleset::default();
        rules.chains.insert(chain.into(), vec![rule.into()]);
        rules.sets.insert("s".into(), ("ipv4_addr", BTreeSet::from([element.to_string()])));
        rules.maps.insert("m", BTreeMap::from([("1.1.1.1".into(), format!("goto {chain}"))]));
        rules
    }

    #[test]
    fn only_what_differs_is_said_and_nothing_is_missed_before_it_is_there() {
        let (empty, one, two) = (Ruleset::default(), with("a", "accept", "1"), with("b", "drop", "2"));
        assert_eq!(one.script("ip t", &one), "");
        let first = "add set ip t s { type ipv4_addr; }\nadd element ip t s { 1 }\nadd chain ip t a\n\
                     add rule ip t a accept\nadd element ip t m { 1.1.1.1 : goto a }\n";
        assert_eq!(one.script("ip t", &empty), first);
        let change = "delete element ip t s { 1 }\nadd element ip t s { 2 }\nadd chain ip t b\nadd rule ip t b drop\n\
                      delete element ip t m { 1.1.1.1 }\nadd element ip t m { 1.1.1.1 : goto b }\n\
                      flush chain ip t a\ndelete chain ip t a\n";
        assert_eq!(two.script("ip t", &one), change);
        let end = "delete element ip t m { 1.1.1.1 }\nflush chain ip t a\ndelete chain ip t a\ndelete set ip t s\n";
        assert_eq!(empty.script("ip t", &one), end);
        let again = with("a", "drop", "1");
        assert_eq!(again.script("ip t", &one), "flush chain ip t a\nadd rule ip t a drop\n");
    }
}
