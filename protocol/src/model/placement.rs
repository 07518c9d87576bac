//! Where the tasks of a service may be, beside whom, and what happens to them when machines are cut off.

use serde::{Deserialize, Serialize};

use super::app::is_dns_label;

/// The most entries of each list here.
pub const ENTRIES_MAX: usize = 32;
/// The longest name of a label, in bytes.
const LABEL_MAX: usize = 128;
/// The longest time that can be asked for: thirty days, ms.
pub const TIME_MS_MAX: u64 = 30 * 86_400_000;
/// Priorities lie between this and its negative.
pub const PRIORITY_MAX: i32 = 1_000_000;
/// The most tasks of a gang.
pub const GANG_MAX: u32 = 2_048;

/// Where the tasks of a service may be, beside the machines that its constraints leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Labels of machines over whose values the tasks are spread evenly, the first before the second:
    /// `deploy.placement.preferences`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<String>,
    /// The most tasks on one machine; 0: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_per_machine: u32,
    /// Services whose tasks are never on the same machine: `db` of the same app, `shop/db` of another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Placement {
    /// Whether nothing is asked for.
    pub fn is_any(&self) -> bool {
        *self == Placement::default()
    }

    /// What is wrong with it: the field, and what to say.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if self.spread.len() > ENTRIES_MAX || self.apart_from.len() > ENTRIES_MAX {
            return Some(("placement", format!("a list of more than {ENTRIES_MAX} entries")));
        }
        if let Some(label) = self.spread.iter().find(|label| label.is_empty() || label.len() > LABEL_MAX) {
            return Some(("placement.spread", format!("'{label}' cannot be the name of a label")));
        }
        let wrong = self.apart_from.iter().find(|other| Other::read("self", other).is_none())?;
        Some(("placement.apart_from", format!("'{wrong}' is neither SERVICE nor APP/SERVICE")))
    }
}

/// A service, perhaps of another app of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Other {
    pub app: String,
    pub service: String,
}

impl Other {
    /// Reads `SERVICE` or `APP/SERVICE` as an app of this name writes it; `None` where it is neither.
    pub fn read(app: &str, text: &str) -> Option<Self> {
        let (app, service) = text.split_once('/').unwrap_or((app, text));
        let sound = is_dns_label(app) && is_dns_label(service);
        sound.then(|| Self { app: app.into(), service: service.into() })
    }
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.app, self.service)
    }
}

/// Which of two copies of a task stays when a partition heals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnHeal {
    /// The one that was accepted first.
    #[default]
    KeepOriginal,
    /// The one that was accepted last.
    KeepReplacement,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_service_is_of_the_same_app_unless_it_says_so() {
        let read = |text| Other::read("shop", text).map(|other| other.to_string());
        assert_eq!(read("db").as_deref(), Some("shop/db"));
        assert_eq!(read("bank/db").as_deref(), Some("bank/db"));
        for text in ["", "/", "a/b/c", "A", "shop/"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let placement = Placement { apart_from: vec!["db".into(), "no such".into()], ..Placement::default() };
        assert_eq!(placement.fault().unwrap().0, "placement.apart_from");
        let placement = Placement { spread: vec![String::new()], ..Placement::default() };
        assert_eq!(placement.fault().unwrap().0, "placement.spread");
        assert_eq!(Placement::default().fault(), None);
    }
}
