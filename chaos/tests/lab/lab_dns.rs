//! Names as resolvers ask for them: tasks that come and go, ports and addresses, and what is none of the zone's.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use rialto_chaos::netns::{Machine, REPLICAS, WEB, run_within, until};

use crate::{PATIENCE, app_file, exactly, live, three, three_with_web};

/// A task that has ended is named no longer than this on any machine, be it ever so busy.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What kdig has of each answer: status, flags, and the records of one section as they are written.
fn kdig(machine: &Machine, more: &[&str]) -> (String, Vec<String>) {
    let port = machine.dns().1.to_string();
    let mut kdig = machine.inside("kdig");
    kdig.args(["@127.0.0.1", "-p", &port, "+noall", "+header", "+answer", "+retry=0", "+timeout=2"]).args(more);
    let said = run_within(&mut kdig, PATIENCE).unwrap().stdout;
    let head: Vec<&str> = said.lines().filter(|line| line.starts_with(";;")).collect();
    let records = said.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    (head.join(" "), records.map(words).collect())
}

#[test]
fn ports_addresses_and_strangers_have_their_answers() {
    let Some((_turn, lab)) = three() else { return };
    lab.import_web(0).unwrap();
    let text =
        "services:\n  web:\n    image: web\n    ports: [{name: http, target: 8080}]\n    deploy: {replicas: 2}\n";
    let file = app_file(&lab, "shop", text);
    lab.machine(1).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "shop"]).unwrap();
    let (rows, _) = lab.machine(0).ps_until("two", PATIENCE, |rows| exactly(rows, "shop", 2)).unwrap();
    for machine in lab.machines() {
        machine.serves(WEB, 2, PATIENCE).unwrap();
        let port = format!("_http._tcp.{WEB}");
        let (head, named) = kdig(machine, &[&port, "SRV"]);
        assert!(head.contains("NOERROR") && head.contains("aa"), "{head}");
        assert_eq!(named, [format!("{port}. 1 IN SRV 0 1 8080 {WEB}.")]);
        let (_, each) = kdig(machine, &[&format!("_http._tcp.tasks.{WEB}"), "SRV"]);
        assert_eq!(each.len(), 2, "{each:?}");
        assert!(kdig(machine, &[&format!("_ftp._tcp.{WEB}"), "SRV"]).0.contains("NXDOMAIN"));
        for row in live(&rows, "shop") {
            let address = row.address.as_ref().unwrap();
            let (_, whose) = kdig(machine, &["-x", address]);
            assert!(whose.len() == 1 && whose[0].ends_with(&format!("{}.{WEB}.", row.slot)), "{address}: {whose:?}");
        }
        // Whoever is not of this machine's tasks is asked for nothing of the world.
        for stranger in [&["example.org", "A"][..], &["rialto.internal", "AXFR"], &[WEB, "A", "-c", "CH"]] {
            let (head, records) = kdig(machine, stranger);
            assert!(!head.contains("NOERROR") && records.is_empty(), "{stranger:?}: {head} {records:?}");
        }
        // Capitals come back as they went out, over both transports, with EDNS and without.
        let shouted = WEB.to_uppercase();
        for more in [&["+tcp"][..], &["+notcp"], &["+edns=0"], &["+noedns"], &["+bufsize=512"]] {
            let (_, records) = kdig(machine, &[&[shouted.as_str(), "A"], more].concat());
            assert!(
                records.len() == 1 && records[0].to_lowercase().starts_with(&format!("{WEB}. 1 in a ")),
                "{more:?} {records:?}"
            );
        }
        assert!(kdig(machine, &[WEB, "A", "+edns=1"]).0.contains("BADVERS"));
    }
    // The resolvers of glibc and of musl in a container: whole names, and short ones.
    let text = "services:\n  ask:\n    image: host\n    command: [sleep, '600']\n";
    let file = app_file(&lab, "asker", text);
    lab.machine(0).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "asker"]).unwrap();
    lab.machine(2).ps_until("the asker", PATIENCE, |rows| exactly(rows, "asker", 1)).unwrap();
    let service = lab.machine(2).dig(WEB, "A", &[]).unwrap().1;
    let with_musl = lab.folder().join("ask");
    let mut resolvers = vec![vec!["getent", "ahostsv4"]];
    if compile_for_musl(&with_musl) {
        lab.machine(1).done(&["cp", &with_musl.to_string_lossy(), "asker.ask.1:/tmp/ask"]).unwrap();
        resolvers.push(vec!["/tmp/ask"]);
    }
    for resolver in resolvers {
        for (name, known) in [(WEB, true), ("ask", true), ("web.shop", true), ("nobody", false)] {
            let words = [&["exec", "asker.ask.1", "--"], &resolver[..], &[name]].concat();
            let found = lab.machine(2).cli(&words).unwrap();
            assert_eq!(found.code == 0, known, "{name}: {found:?}");
            assert!(name != WEB || found.stdout.starts_with(&service[0]), "{found:?}");
        }
    }
}

/// Prints the addresses of a name as the system's own resolver finds them.
const ASK: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int count, char **words) {
  struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
  if (count != 2 || getaddrinfo(words[1], 0, &wanted, &found)) return 2;
  for (; found; found = found->ai_next) {
    char text[INET_ADDRSTRLEN];
    puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
  }
}
"#;

/// Makes the program of [`ASK`] with musl as its C library, linked when it starts; false, with the reason printed, where there is none.
fn compile_for_musl(program: &std::path::Path) -> bool {
    let source = program.with_extension("c");
    std::fs::write(&source, ASK).unwrap();
    match Command::new("musl-gcc").arg("-o").arg(program).arg(&source).output() {
        Ok(made) => {
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let bytes = std::fs::read(program).unwrap();
            assert!(bytes.windows(8).any(|part| part == b"/ld-musl"), "musl's own loader starts it");
            true
        }
        Err(error) => {
            writeln!(std::io::stderr(), "skipped: musl's resolver: musl-gcc (musl-tools): {error}").ok();
            false
        }
    }
}

#[test]
fn a_task_that_ends_is_named_nowhere() {
    let Some((_turn, lab)) = three_with_web() else { return };
    for machine in lab.machines() {
        machine.serves(WEB, REPLICAS, PATIENCE).unwrap();
    }
    let rows = lab.machine(0).ps().unwrap();
    let first = live(&rows, "shop").into_iter().find(|row| row.slot == "1").unwrap();
    let (address, name) = (first.address.clone().unwrap(), format!("tasks.{WEB}"));
    // It ends by itself; what is started in its place has another address.
    let begun = Instant::now();
    lab.machine(1).cli(&["exec", "shop.web.1", "--", "kill", "1"]).unwrap();
    for machine in lab.machines() {
        let gone = || match machine.dig(&name, "A", &[]) {
            Ok((_, addresses)) if !addresses.contains(&address) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        until("its name to go", GONE_WITHIN, gone).unwrap();
    }
    println!("gone from every peer's DNS after {:?}", begun.elapsed());
}
