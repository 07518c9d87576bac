//! A cable that is cut without a word: two network namespaces, and a filter that drops everything.

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use rialto_protocol::ids::PeerId;

use crate::world::{Node, beat};

/// Runs a command in this thread's network namespace.
fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let output =
        Command::new(words.next().unwrap()).args(words).output().map_err(|error| format!("{line}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Runs a peer that lives in a namespace of its own, which vanishes with the thread.
fn in_namespace<T: Send + 'static>(
    life: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> thread::JoinHandle<Result<T, String>> {
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        run("ip link set lo up")?;
        life()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_cut_cable_is_noticed_and_its_mending_too() {
    let (tell_thread, thread_of_two) = mpsc::channel();
    let (tell_wired, wired) = mpsc::channel::<()>();
    let (tell_two, two_entry) = mpsc::channel::<(PeerId, Vec<String>)>();
    let (tell_one, one_entry) = mpsc::channel::<(PeerId, Vec<String>)>();
    let (tell_end, end) = mpsc::channel::<()>();

    let second = in_namespace(move || {
        tell_thread.send(gettid()).map_err(|error| error.to_string())?;
        wired.recv().map_err(|_| "the wire could not be laid".to_string())?;
        run("ip addr add 10.9.0.2/24 dev mesh2")?;
        run("ip link set mesh2 up")?;
        runtime().block_on(async {
            let node = Node::start_listening(2, "10.9.0.2:7400".parse().unwrap()).await;
            tell_two.send(node.entry()).map_err(|error| error.to_string())?;
            let entries = vec![one_entry.recv().map_err(|error| error.to_string())?];
            node.mesh.set_members(entries.clone());
            node.mesh.set_links(entries);
            // The peer lives on as long as the first one needs it.
            tokio::task::spawn_blocking(move || end.recv()).await.unwrap().map_err(|error| error.to_string())
        })
    });
    let first = in_namespace(move || {
        let two = thread_of_two.recv().map_err(|_| "the other has no namespace".to_string())?;
        run(&format!("ip link add mesh1 type veth peer name mesh2 netns {two}"))?;
        run("ip addr add 10.9.0.1/24 dev mesh1")?;
        run("ip link set mesh1 up")?;
        run("nft add table inet cut")?;
        tell_wired.send(()).map_err(|error| error.to_string())?;
        runtime().block_on(async {
            let two = two_entry.recv().map_err(|error| error.to_string())?;
            let mut node = Node::start_listening(1, "10.9.0.1:7400".parse().unwrap()).await;
            tell_one.send(node.entry()).map_err(|error| error.to_string())?;
            node.mesh.set_members(vec![two.clone()]);
            node.mesh.set_links(vec![two.clone()]);
            node.link(two.0, true).await;
            for hook in ["input", "output"] {
                run(&format!(
                    "nft add chain inet cut {hook} {{ type filter hook {hook} priority 0 ; policy drop ; }}"
                ))?;
            }
            let mesh = node.mesh.clone();
            let beating = tokio::spawn(async move {
                loop {
                    mesh.send(two.0, beat(1));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
            let since = Instant::now();
            node.link(two.0, false).await;
            let noticed = since.elapsed();
            run("nft delete table inet cut")?;
            let since = Instant::now();
            node.link(two.0, true).await;
            let mended = since.elapsed();
            beating.abort();
            tell_end.send(()).map_err(|error| error.to_string())?;
            Ok((noticed, mended))
        })
    });
    let first = first.join().unwrap();
    let second = second.join().unwrap();
    match (first, second) {
        (Ok((noticed, mended)), Ok(())) => {
            println!("noticed after {noticed:?}, linked again {mended:?} after it was mended");
            assert!(noticed < Duration::from_secs(12), "{noticed:?}");
            assert!(mended < Duration::from_secs(12), "{mended:?}");
        }
        (first, second) => println!("skipped: {:?} {:?}", first.err(), second.err()),
    }
}
