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

fn damaged(chance: &mut Chance) -> String {
    let mut text = SEEDS[chance.below(SEEDS.len())].to_string();
    for _ in 0..=chance.below(6) {
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
                let other = SEEDS[chance.below(SEEDS.len())];
                let line = other.lines().nth(chance.below(other.lines().count())).unwrap_or_default();
                text.insert_str(from, &format!("\n{line}\n"));
            }
            _ => text.insert_str(from, &text.clone()[..from.min(200)].chars().rev().collect::<String>()),
        }
        text.truncate((0..=text.len().min(4_000)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    }
    text
}

/// Ten thousand files; `RIALTO_MUTATIONS` says how many (`make soak`: a million), `RIALTO_SEED` which.
#[test]
fn no_damage_makes_the_reader_panic() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (count, seed) = (number("RIALTO_MUTATIONS", 10_000), number("RIALTO_SEED", 4711));
    println!("seed {seed}");
    let mut chance = Chance(seed.max(1));
    let (mut read, mut refused) = (0u64, 0u64);
    for _ in 0..count {
        let (text, other) = (damaged(&mut chance), damaged(&mut chance));
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
    assert!(count < 1_000 || read > 0 && refused > 0, "{read} read and {refused} refused show nothing");
}
