//! Damaged files: read or refused by line and column, never a panic, and never slowly.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rialto_protocol::compose::{self, Options, PROBLEMS_MAX, Source, Surroundings, Unread};

const SEEDS: [&str; 3] = [
    "name: shop\nx-a: &a {environment: {A: '${X:-1}'}}\nservices:\n  web:\n    <<: *a\n    image: web:1\n    command: sh -c 'echo $$PORT'\n    ports: [80, '8080-8082:80-82/udp', {target: 443, published: 8443, name: https}]\n    env_file: [a.env, {path: b, required: false}]\n    extends: {service: base, file: other.yaml}\n    deploy:\n      replicas: 3\n      resources: {limits: {cpus: '0.5', memory: 128m}, reservations: {memory: 64m}}\n      placement: {constraints: [node.labels.a == b]}\n    healthcheck: {test: [CMD, x], interval: 5s}\n  base:\n    image: host\n    profiles: [debug]\n    networks: {near: }\nnetworks: {near: {external: true}}\n",
    "include: [other.yaml, {path: [a.env]}]\nservices:\n  db:\n    image: host\n    build: {context: .}\n    user: \"5:5\"\n    ulimits: {nofile: {soft: 1, hard: 2}}\n    logging: {driver: x}\n    tmpfs: /run:size=1m\n    x-rialto: {priority: 5, health: 'tcp://:80', lost_after: 5s}\n",
    "{\"services\": {\"a\": {\"image\": \"host\", \"extends\": \"b\"}, \"b\": {\"image\": \"x\", \"extends\": \"a\"}}}\n",
];

const WORDS: [&str; 32] = [
    "services:",
    "image: ",
    "\n",
    "\n  ",
    "\t",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: *a",
    "!reset ",
    "!override ",
    "${X:-",
    "}",
    "$",
    "$$",
    "'",
    "\"",
    "#",
    "|\n",
    "\u{0}",
    "é",
    "null",
    "-1",
    "99999999999999999999",
    "1e999",
    "---\n",
    "? ",
];

/// What a key may have been given by mistake.
const VALUES: [&str; 24] = [
    "0",
    "-1",
    "1",
    "3",
    "1e9",
    "1.5",
    "99999999999999999999",
    "true",
    "null",
    "~",
    "''",
    "[]",
    "{}",
    "host",
    "a:b",
    "5s",
    "128m",
    "'${X}'",
    "'${NO:-1}'",
    "'a b'",
    "[a, b]",
    "{a: b}",
    "é",
    "*a",
];

/// What other files refer to.
const OTHER: &str = "services:\n  base:\n    image: host\n    environment: [B=2]\n";

/// Our own files and other people's, where there are any.
fn seeds() -> Vec<String> {
    let folder = super::corpus().and_then(|folder| std::fs::read_dir(folder).ok());
    let mut paths: Vec<_> = folder.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let others = paths.iter().filter(|path| path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml"));
    SEEDS.map(str::to_string).into_iter().chain(others.filter_map(|path| std::fs::read_to_string(path).ok())).collect()
}

/// Files beside the app file, some of them as damaged as it.
struct Beside<'a>(&'a str);

impl Surroundings for Beside<'_> {
    fn read(&self, _: &str, path: &str) -> Result<Source, Unread> {
        let text = match path {
            ".env" => "X=1\nY='two'\n",
            "other.yaml" => self.0,
            "a.env" | "b" => "A=1\nB=\"$A\"\n",
            _ => return Err(Unread::Missing),
        };
        Ok(Source { name: path.into(), text: text.into() })
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "X").then(|| "x".repeat(100))
    }
}

/// xorshift64*: the same damage for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most.max(1)
    }
}

fn damaged(seeds: &[String], chance: &mut Chance) -> String {
    let mut text = seeds[chance.below(seeds.len())].clone();
    if chance.below(2) == 0 {
        return misled(text, seeds, chance);
    }
    // Mostly a little: what is refused at its first line says nothing of what comes after.
    let most = [1, 1, 3, 6][chance.below(4)];
    for _ in 0..=chance.below(most) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let from = places[chance.below(places.len())];
        match chance.below(6) {
            0 => text.insert_str(from, WORDS[chance.below(WORDS.len())]),
            1 => {
                let to = places[chance.below(places.len())];
                text.replace_range(from.min(to)..from.max(to), "");
            }
            2 => {
                let to = (from + 1 + chance.below(4)).min(text.len());
                if text.is_char_boundary(to) {
                    text.replace_range(from..to, WORDS[chance.below(WORDS.len())]);
                }
            }
            3 => {
                let lines: Vec<&str> = text.lines().collect();
                if lines.len() > 1 {
                    let (one, other) = (chance.below(lines.len()), chance.below(lines.len()));
                    let mut lines = lines.clone();
                    lines.swap(one, other);
                    text = lines.join("\n");
                }
            }
            4 => {
                let other = &seeds[chance.below(seeds.len())];
                let line = other.lines().nth(chance.below(other.lines().count())).unwrap_or_default();
                text.insert_str(from, &format!("\n{line}\n"));
            }
            _ => text.insert_str(from, &text[..from].chars().rev().take(200).collect::<String>()),
        }
        text.truncate((0..=text.len().min(4_000)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    }
    text
}

/// A file that is well-formed, more or less, and says something else than it should.
fn misled(text: String, seeds: &[String], chance: &mut Chance) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for _ in 0..=chance.below(3) {
        if lines.is_empty() {
            break;
        }
        let at = chance.below(lines.len());
        match chance.below(3) {
            0 => drop(lines.remove(at)),
            1 => {
                if let Some((key, _)) = lines[at].split_once(": ") {
                    lines[at] = format!("{key}: {}", VALUES[chance.below(VALUES.len())]);
                }
            }
            _ => {
                let other: Vec<&str> = seeds[chance.below(seeds.len())].lines().collect();
                let depth = lines[at].len() - lines[at].trim_start().len();
                let line = other[chance.below(other.len())].trim_start();
                lines.insert(at + 1, format!("{}{line}", " ".repeat(depth)));
            }
        }
    }
    lines.join("\n")
}

/// Ten thousand files; `RIALTO_MUTATIONS` says how many (`make soak`: a million), `RIALTO_SEED` which.
#[test]
fn no_damage_makes_the_reader_panic() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (count, seed) = (number("RIALTO_MUTATIONS", 10_000), number("RIALTO_SEED", 4711));
    println!("seed {seed}");
    let (seeds, mut chance) = (seeds(), Chance(seed.max(1)));
    let (mut read, mut refused) = (0u64, 0u64);
    for _ in 0..count {
        let text = damaged(&seeds, &mut chance);
        let other = if chance.below(2) == 0 { OTHER.to_string() } else { damaged(&seeds, &mut chance) };
        let files = vec![Source { name: "f".into(), text: text.clone() }];
        let options = Options { profiles: vec!["*".into()], ..Options::default() };
        let outcome = catch_unwind(AssertUnwindSafe(|| compose::load_files(files, &options, &Beside(&other))));
        match outcome.unwrap_or_else(|_| panic!("this file makes it panic:\n{text}\nbeside:\n{other}")) {
            Ok(app) => {
                assert!(!app.spec.services.is_empty(), "{text}");
                read += 1;
            }
            Err(problems) => {
                assert!((1..=PROBLEMS_MAX).contains(&problems.len()), "{text}");
                assert!(problems.iter().all(|problem| problem.line > 0 && problem.column > 0), "{text}");
                refused += 1;
            }
        }
    }
    println!("{read} read, {refused} refused, 0 panics");
    assert!(
        count < 1_000 || read > count / 50 && refused > count / 50,
        "{read} read and {refused} refused show little"
    );
}
