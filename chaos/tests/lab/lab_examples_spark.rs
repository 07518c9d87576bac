//! `examples/spark` on three real peers: a word count by two workers, checked against a count of the same text made here. An
//! image of 600 MB and six Java machines are too much for every run of the tests: it is part of `make soak`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rialto_chaos::netns::{example, run_within};

use crate::{images, three};

/// The image is fetched by two machines and unpacked by all; then Java begins six times.
const LIMIT: Duration = Duration::from_secs(600);
const TEXT: &str = "/usr/share/common-licenses/GPL-3";

#[test]
#[ignore = "an image of 600 MB: make soak"]
fn spark_counts_words() {
    let Some((_turn, lab)) = three() else { return };
    let began = Instant::now();
    if !images::import(&lab, &["spark"]) {
        return;
    }
    println!("made and imported after {:?}", began.elapsed());
    let file = example("spark/compose.yaml").to_string_lossy().into_owned();
    let limit = format!("{}s", LIMIT.as_secs());
    let begun = Instant::now();
    run_within(&mut lab.machine(1).cli_command(&["deploy", "--timeout", &limit, "-f", &file]), LIMIT)
        .and_then(|said| said.ok())
        .unwrap();
    run_within(&mut lab.machine(2).cli_command(&["wait", "--timeout", &limit, "spark.count"]), LIMIT)
        .and_then(|said| said.ok())
        .unwrap();
    println!("counted {:?} after the deploy was asked for", begun.elapsed());

    let text = lab.machine(0).done(&["exec", "spark.master.1", "--", "cat", TEXT]).unwrap().stdout.to_lowercase();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_ascii_lowercase()).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_default() += 1;
    }
    let mut commonest: Vec<_> = counts.iter().collect();
    commonest.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), **word));
    let mut wanted: Vec<String> = commonest[..10].iter().map(|(word, count)| format!("word {word} {count}")).collect();
    wanted.push(format!("words {} different {}", counts.values().sum::<usize>(), counts.len()));
    wanted.push("executors 2".into());
    let said = lab.machine(0).done(&["logs", "spark.count"]).unwrap().stdout;
    for line in wanted {
        assert!(said.contains(&line), "no `{line}` in:\n{said}");
    }
}
