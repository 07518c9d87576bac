//! The lab itself: a test of faults is worth what the faults are worth.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rialto_chaos::netns::Lab;

use crate::bare;

const PORT: u16 = 9000;

/// Sends `count` datagrams from one machine to another; how many came. Each call's are its own: what
/// waited for an address to be resolved behind a cut arrives after the cut has healed.
fn arrive(lab: &Lab, from: usize, to: usize, count: u32) -> u32 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let target = SocketAddr::from((lab.machine(to).address(), PORT));
    let receiver = lab.machine(to).within(|| UdpSocket::bind(target)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let counter = std::thread::spawn(move || {
        let mut datagram = [0; 16];
        let mut came = 0;
        while let Ok(length) = receiver.recv(&mut datagram) {
            came += u32::from(datagram[..length] == call);
        }
        came
    });
    let sender = lab.machine(from).within(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for _ in 0..count {
        sender.send_to(&call, target).unwrap();
        // One at a time: what is lost shall be lost on the wire, not in a full socket.
        std::thread::sleep(Duration::from_micros(200));
    }
    counter.join().unwrap()
}

/// A process in a session of its own, as a task's is, that runs on a machine by now.
fn stray(lab: &Lab, at: usize) -> Child {
    let mut command = lab.machine(at).inside("setsid");
    command.args(["sh", "-c", "echo on; exec sleep 600"]).stdout(Stdio::piped());
    let mut stray = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(stray.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "on\n");
    stray
}

#[test]
fn cuts_are_one_way_or_both_and_heal() {
    let Some((_turn, mut lab)) = bare(3) else { return };
    assert_eq!(arrive(&lab, 0, 1, 10), 10);
    lab.cut_one_way(0, 1).unwrap();
    assert_eq!(arrive(&lab, 0, 1, 10), 0);
    assert_eq!(arrive(&lab, 2, 1, 10), 10);
    lab.heal().unwrap();
    lab.isolate(2).unwrap();
    assert_eq!((arrive(&lab, 0, 2, 10), arrive(&lab, 1, 2, 10), arrive(&lab, 0, 1, 10)), (0, 0, 10));
    lab.heal().unwrap();
    assert_eq!(arrive(&lab, 0, 2, 10), 10);
}

#[test]
fn loss_is_the_share_that_was_asked_for() {
    let Some((_turn, mut lab)) = bare(2) else { return };
    // The machines know each other's hardware addresses before questions for them are lost, too.
    assert_eq!(arrive(&lab, 0, 1, 10), 10);
    lab.lose_everywhere(20).unwrap();
    let came = arrive(&lab, 0, 1, 2000);
    assert!((1500..1700).contains(&came), "{came} of 2000 came at 20 % loss");
}

#[test]
fn a_dead_machine_takes_everything_with_it_and_boots_anew() {
    let Some((_turn, mut lab)) = bare(2) else { return };
    let boot_id = |lab: &Lab| {
        let mut command = lab.machine(1).inside("cat");
        let output = command.arg("/proc/sys/kernel/random/boot_id").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let first = boot_id(&lab);
    let mut stray = stray(&lab, 1);
    lab.die(1).unwrap();
    assert!(stray.try_wait().unwrap().is_some(), "it must have died with its machine");
    lab.boot(1).unwrap();
    assert_eq!(arrive(&lab, 0, 1, 10), 10);
    assert_ne!(boot_id(&lab), first);
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let Some((_turn, lab)) = bare(3) else { return };
    let mut stray = stray(&lab, 0);
    let names =
        || std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    let folder = lab.machine(0).data().parent().unwrap().to_owned();
    let before = names().len();
    drop(lab);
    assert_eq!(before - names().len(), 4, "three machines and a bridge");
    assert!(stray.try_wait().unwrap().is_some());
    assert!(!folder.exists());
}
