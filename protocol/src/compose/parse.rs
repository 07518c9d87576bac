//! From a tree to an app: the top of the file, and what every level shares.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::{self, Level};
use super::quantity::shown;
use super::secrets::ToSet;
use super::surroundings::{Nothing, Options, Source, Surroundings};
use super::tree::{Entry, Node, Place, Value};
use super::{
    AppFile, PROBLEMS_MAX, Problem, REPLICAS_MAX, SERVICES_MAX, depends, load, networks, secrets, service, volumes,
};
use crate::model::app::is_dns_label;
use crate::model::container::OPTIONS_MAX;
use crate::model::volume::{Content, Named};
use crate::model::{AppSpec, ServiceSpec};

/// The most bytes that the values of all files come to when their variables are filled in.
const VALUE_BYTES_MAX: usize = 4 << 20;
/// The most nodes that `extends` copies.
const COPIES_MAX: usize = 200_000;

/// Reads an app file that stands alone. `file` is what it is called in messages.
///
/// # Errors
///
/// Every mistake that was found, in the order of the file, at most [`PROBLEMS_MAX`].
pub fn parse(text: &str, file: &str) -> Result<AppFile, Vec<Problem>> {
    let source = Source { name: file.into(), text: text.into() };
    load_files(vec![source], &Options::default(), &Nothing)
}

/// Reads the files of an app, the later over the earlier, as Compose puts them together.
///
/// # Errors
///
/// Every mistake that was found, in the order of the files, at most [`PROBLEMS_MAX`]; where it is strict, also
/// everything that would be warned about.
pub fn load_files(files: Vec<Source>, options: &Options, around: &dyn Surroundings) -> Result<AppFile, Vec<Problem>> {
    let mut reader = Reader::new(around, options);
    let found = load::load(&mut reader, files).and_then(|root| reader.app(root));
    let in_order = |problems: &mut Vec<(Place, Problem)>| -> Vec<Problem> {
        problems.sort_by_key(|(place, _)| *place);
        std::mem::take(problems).into_iter().map(|(_, problem)| problem).collect()
    };
    if options.strict {
        reader.problems.append(&mut reader.warnings);
        reader.problems.truncate(PROBLEMS_MAX);
    }
    let problems = in_order(&mut reader.problems);
    match found {
        Some(app) if problems.is_empty() => Ok(AppFile {
            warnings: in_order(&mut reader.warnings),
            conditions: in_order(&mut reader.conditions),
            ..app
        }),
        _ => Err(problems),
    }
}

/// A file: what it is called, and from beside which one it names others.
struct File {
    name: String,
    base: String,
}

/// Collects what is wrong while the tree is walked.
pub struct Reader<'a> {
    files: Vec<File>,
    problems: Vec<(Place, Problem)>,
    warnings: Vec<(Place, Problem)>,
    conditions: Vec<(Place, Problem)>,
    around: &'a dyn Surroundings,
    options: &'a Options,
    /// What `.env` sets. What is set around the deploy goes over it.
    variables: BTreeMap<String, String>,
    /// How many bytes of values the files may still come to.
    pub room: usize,
    /// How many nodes may still be taken over by `extends`.
    pub copies: usize,
    /// Networks that the file names, and what the cluster calls them; `None`: the app's own.
    pub networks: BTreeMap<String, Option<String>>,
    /// Volumes that the file names, and what the cluster calls them; what configs and secrets hold.
    pub volumes: BTreeMap<String, Named>,
    pub configs: BTreeMap<String, Content>,
    pub secrets: BTreeMap<String, Content>,
    /// Secrets that the client is to set.
    pub to_set: ToSet,
    /// Services that some depend on, though the app need not have them.
    pub optional: BTreeSet<String>,
    /// Where each `services.NAME.depends_on.OTHER` stands.
    pub awaited: BTreeMap<String, Place>,
}

impl<'a> Reader<'a> {
    pub fn new(around: &'a dyn Surroundings, options: &'a Options) -> Self {
        Self {
            files: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            conditions: Vec::new(),
            around,
            options,
            variables: BTreeMap::new(),
            room: VALUE_BYTES_MAX,
            copies: COPIES_MAX,
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            configs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            to_set: ToSet::new(),
            optional: BTreeSet::new(),
            awaited: BTreeMap::new(),
        }
    }

    /// Takes note of a mistake.
    pub fn wrong(&mut self, at: Place, key: &str, message: impl Into<String>) {
        self.wrong_with(at, key, message, None);
    }

    /// Takes note of a mistake and a way out.
    pub fn wrong_with(&mut self, at: Place, key: &str, message: impl Into<String>, hint: Option<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let problem = self.problem(at, key, message.into(), hint);
            self.problems.push((at, problem));
        }
    }

    /// Takes note of what is passed over.
    pub fn warn(&mut self, at: Place, key: &str, message: impl Into<String>) {
        if self.warnings.len() < PROBLEMS_MAX {
            let problem = self.problem(at, key, message.into(), None);
            self.warnings.push((at, problem));
        }
    }

    /// Takes note of what a machine has to allow, or to have.
    pub fn depends(&mut self, at: Place, key: &str, message: impl Into<String>) {
        if self.conditions.len() < PROBLEMS_MAX {
            let problem = self.problem(at, key, message.into(), None);
            self.conditions.push((at, problem));
        }
    }

    fn problem(&self, at: Place, key: &str, message: String, hint: Option<String>) -> Problem {
        let file = self.files.get(usize::from(at.file)).map(|file| file.name.clone()).unwrap_or_default();
        Problem { file, line: at.line, column: at.column, key: shown_path(key), message, hint }
    }

    /// Counts a file in, and says its number. `base` is the file from beside which it names others.
    pub fn add_file(&mut self, name: String, base: String) -> u16 {
        self.files.push(File { name, base });
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    pub fn files(&self) -> usize {
        self.files.len()
    }

    pub fn surroundings(&self) -> &'a dyn Surroundings {
        self.around
    }

    /// The file from beside which something at this place names others.
    pub fn base(&self, at: Place) -> &str {
        self.files.get(usize::from(at.file)).map_or("", |file| file.base.as_str())
    }

    /// A file that is named at a place. That it cannot be read is noted.
    pub fn read_beside(&mut self, at: Place, path: &str, key: &str) -> Option<Source> {
        match self.around.read(self.base(at), path) {
            Ok(source) => Some(source),
            Err(unread) => {
                self.wrong(at, key, format!("{}: {}", shown(path), load::told(&unread)));
                None
            }
        }
    }

    /// A variable, of the surroundings or of `.env`.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.around.variable(name).or_else(|| self.variables.get(name).cloned())
    }

    pub fn variables(&self) -> BTreeMap<String, String> {
        self.variables.clone()
    }

    /// Sets variables; what is set already gives way.
    pub fn set(&mut self, variables: BTreeMap<String, String>) {
        self.variables.extend(variables);
    }

    pub fn replace_variables(&mut self, variables: BTreeMap<String, String>) {
        self.variables = variables;
    }

    pub fn env_files(&self) -> Vec<String> {
        self.options.env_files.clone()
    }

    /// The active profiles.
    pub fn profiles(&self) -> Vec<String> {
        if !self.options.profiles.is_empty() {
            return self.options.profiles.clone();
        }
        let named = self.variable("COMPOSE_PROFILES").unwrap_or_default();
        named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect()
    }

    fn app(&mut self, root: Node) -> Option<AppFile> {
        let place = root.place;
        let mut top = self.level(root, "", &keys::TOP)?;
        let name = top.remove("name").and_then(|node| self.app_name(&node.value));
        if let Some(entry) = top.remove("networks") {
            self.networks = networks::top(self, entry.value);
        }
        if let Some(entry) = top.remove("volumes") {
            self.volumes = volumes::top(self, entry.value);
        }
        if let Some(entry) = top.remove("configs") {
            self.configs = secrets::top(self, entry.value, secrets::Kind::Config);
        }
        if let Some(entry) = top.remove("secrets") {
            self.secrets = secrets::top(self, entry.value, secrets::Kind::Secret);
        }
        let services = match top.remove("services") {
            Some(node) => self.services(node.value),
            None => {
                self.wrong_with(place, "services", "the file names no services", Some("add a services: key".into()));
                BTreeMap::new()
            }
        };
        let spec = AppSpec { services, single_run: false };
        let secrets = std::mem::take(&mut self.to_set);
        Some(AppFile { name, spec, secrets, warnings: Vec::new(), conditions: Vec::new() })
    }

    fn app_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "name")?;
        if name == "machine" {
            self.wrong(
                node.place,
                "name",
                "no app can be named machine: NAME.machine.rialto.internal are the machines",
            );
            return None;
        }
        if is_dns_label(&name) {
            return Some(name);
        }
        self.not_a_label(node.place, "name", "an app's name", &name);
        None
    }

    fn services(&mut self, node: Node) -> BTreeMap<String, ServiceSpec> {
        let place = node.place;
        let Some(entries) = self.map(node, "services") else { return BTreeMap::new() };
        if entries.is_empty() || entries.len() > SERVICES_MAX {
            self.wrong(place, "services", format!("an app has 1 to {SERVICES_MAX} services"));
        }
        let mut services: BTreeMap<String, ServiceSpec> = BTreeMap::new();
        for Entry { key: name, at, value } in entries {
            let path = format!("services.{name}");
            if !is_dns_label(&name) {
                self.not_a_label(at, &path, "a service's name", &name);
            }
            if let Some(service) = service::read(self, value, at, &path) {
                services.insert(name, service);
            }
        }
        depends::check(self, place, &mut services);
        let tasks: u64 = services.values().map(|service| u64::from(service.replicas)).sum();
        if tasks > u64::from(REPLICAS_MAX) {
            self.wrong(place, "services", format!("{tasks} tasks in all are more than {REPLICAS_MAX}"));
        }
        services
    }

    fn not_a_label(&mut self, at: Place, path: &str, what: &str, name: &str) {
        let message = format!("'{}' cannot be {what}: it is part of DNS names", shown(name));
        let like = label_like(name);
        let hint = match is_dns_label(&like) {
            true => format!("write '{like}'"),
            false => "use 1 to 63 lower-case letters, digits and hyphens, without a hyphen at either end".into(),
        };
        self.wrong_with(at, path, message, Some(hint));
    }

    /// The entries of a level by key; what the level does not honour is warned about or refused.
    pub fn level(&mut self, node: Node, path: &str, level: &Level) -> Option<BTreeMap<&'static str, Entry>> {
        let mut known = BTreeMap::new();
        for entry in self.map(node, path)? {
            if keys::admit(self, level, &entry, path)
                && let Some(key) = level.key(&entry.key)
            {
                known.insert(key.name, entry);
            }
        }
        Some(known)
    }

    /// The entries of a mapping.
    pub fn map(&mut self, node: Node, path: &str) -> Option<Vec<Entry>> {
        match node.value {
            Value::Map(entries) => Some(entries),
            other => {
                self.wrong(node.place, path, format!("a mapping is expected here, not {}", other.kind()));
                None
            }
        }
    }

    /// The items of a list that is not too long.
    pub fn items(&mut self, node: Node, path: &str, most: usize) -> Vec<Node> {
        match node.value {
            Value::List(items) if items.len() <= most => items,
            Value::List(_) => {
                self.wrong(node.place, path, format!("at most {most} entries are allowed here"));
                Vec::new()
            }
            other => {
                self.wrong(node.place, path, format!("a list is expected here, not {}", other.kind()));
                Vec::new()
            }
        }
    }

    /// Refuses single values that a list has twice.
    pub fn each_once(&mut self, items: &[Node], path: &str) {
        let mut seen = BTreeSet::new();
        for item in items {
            if let Some(text) = item.scalar()
                && !seen.insert(text)
            {
                self.wrong(item.place, path, format!("'{}' is here twice", shown(text)));
            }
        }
    }

    /// The texts of a list, each once.
    pub fn words(&mut self, node: Node, path: &str, most: usize) -> Vec<String> {
        let items = self.items(node, path, most);
        self.each_once(&items, path);
        items.iter().filter_map(|item| self.text(item, path)).collect()
    }

    /// A single text, or those of a list.
    pub fn one_or_more(&mut self, node: Node, path: &str) -> Vec<String> {
        match &node.value {
            Value::Scalar(_) => self.text(&node, path).into_iter().collect(),
            _ => self.words(node, path, OPTIONS_MAX),
        }
    }

    /// A single value as text.
    pub fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        let Value::Scalar(text) = &node.value else {
            self.wrong(node.place, path, format!("a single value is expected here, not {}", node.value.kind()));
            return None;
        };
        if text.contains('\0') {
            self.wrong(node.place, path, "a value cannot hold a NUL character");
            return None;
        }
        Some(text.clone())
    }

    /// A single value through a reader of its own.
    pub fn value<T>(&mut self, node: &Node, path: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(node, path)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(node.place, path, message);
                None
            }
        }
    }
}

/// `path.key`.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

fn shown_path(path: &str) -> String {
    path.split('.').map(shown).collect::<Vec<_>>().join(".")
}

/// The DNS label that is nearest to a name: lower case, everything else a hyphen. It may be empty.
pub fn label_like(name: &str) -> String {
    let mut label = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
        if label.len() == 63 {
            break;
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    label
}
