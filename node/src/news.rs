//! What has changed lately, for those who watch the brain.

use std::collections::{BTreeSet, VecDeque};

/// The most words that are remembered: who has missed more looks at everything.
const RECENT_MAX: usize = 64;

/// What a change may have touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What these apps show.
    Apps(BTreeSet<String>),
    /// Anything at all: machines have changed, and with them what is shown of the tasks on them.
    Everything,
}

impl Scope {
    /// Whether an app of this name may show something else.
    pub fn holds(&self, app: &str) -> bool {
        match self {
            Scope::Apps(apps) => apps.contains(app),
            Scope::Everything => true,
        }
    }

    /// Makes this mean both.
    pub fn add(&mut self, other: &Scope) {
        match (self, other) {
            (Scope::Apps(apps), Scope::Apps(more)) => apps.extend(more.iter().cloned()),
            (all, _) => *all = Scope::Everything,
        }
    }
}

/// Numbered words of what has changed.
#[derive(Debug, Default)]
pub struct News {
    count: u64,
    recent: VecDeque<Scope>,
}

impl News {
    /// One more word.
    pub fn tell(&mut self, scope: Scope) {
        self.count += 1;
        self.recent.push_back(scope);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// The number of the last word.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Everything that was told after the word of this number.
    pub fn since(&self, count: u64) -> Scope {
        let missed = self.count.saturating_sub(count) as usize;
        if missed > self.recent.len() {
            return Scope::Everything;
        }
        let mut scope = Scope::Apps(BTreeSet::new());
        self.recent.iter().rev().take(missed).for_each(|word| scope.add(word));
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps(names: &[&str]) -> Scope {
        Scope::Apps(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn who_missed_some_words_hears_them_together() {
        let mut news = News::default();
        for name in ["a", "b", "c"] {
            news.tell(apps(&[name]));
        }
        assert_eq!(news.since(3), apps(&[]));
        assert_eq!(news.since(1), apps(&["b", "c"]));
        assert!(news.since(1).holds("b") && !news.since(1).holds("a"));
        news.tell(Scope::Everything);
        assert_eq!(news.since(2), Scope::Everything);
        (0..RECENT_MAX).for_each(|_| news.tell(apps(&["d"])));
        assert_eq!(news.since(news.count() - RECENT_MAX as u64), apps(&["d"]));
        assert_eq!(news.since(0), Scope::Everything);
    }
}
