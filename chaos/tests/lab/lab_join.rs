//! Who may join, and who may not.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rialto_chaos::netns::until;

use crate::{PATIENCE, cluster_of};

const PEER_PORT: u16 = 7400;

#[test]
fn a_fourth_joins_by_any_peer_and_strangers_do_not() {
    let Some((_turn, mut lab)) = cluster_of(3, 4) else { return };

    // A token that is no token ends the start with words.
    let output = lab.machine(3).start_in_vain(&["--join", "rialto1.bm8"], Duration::from_secs(10)).unwrap();
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("--join") && !output.stderr.contains("panicked"), "{output:?}");

    // One that ran out is refused, for as long as it is tried.
    let stale = lab.machine(0).invite(&["--ttl", "1s"]).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    lab.machine_mut(3).spawn(&["--join", &stale]).unwrap();
    let refused = || {
        let refused: u64 = lab.machine(0).status().map(|status| status.refused.values().sum()).unwrap_or(0);
        if refused > 0 { Ok(()) } else { Err("nothing counted".into()) }
    };
    until("the refusal counted", PATIENCE, refused).unwrap();
    assert_eq!(lab.machine(0).status().unwrap().machines_known, 3);
    lab.machine_mut(3).kill_peer();

    // One of another cluster is refused, too: this machine founds its own meanwhile.
    std::fs::remove_dir_all(lab.machine(3).data()).unwrap();
    lab.machine_mut(3).start(&[]).unwrap();
    lab.machine(3).sees(1, PATIENCE).unwrap();
    lab.machine(3).done(&["run", "host", "--", "true"]).unwrap();
    assert_eq!(lab.machine(0).status().unwrap().machines_known, 3);
    lab.machine_mut(3).kill_peer();

    // Noise on the wire harms nobody.
    let target = SocketAddr::from((lab.machine(0).address(), PEER_PORT));
    let noise = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
        let junk: Vec<u8> = (0..65536_u32).map(|at| (at.wrapping_mul(2654435761) >> 24) as u8).collect();
        // The peer may well hang up before it has read all of it.
        stream.write_all(&junk).ok();
        Ok(())
    };
    for _ in 0..20 {
        lab.machine(3).within(noise).unwrap().unwrap();
    }

    // A good token of any peer, with an empty folder, does it.
    std::fs::remove_dir_all(lab.machine(3).data()).unwrap();
    let token = lab.machine(2).invite(&["--uses", "1"]).unwrap();
    lab.machine_mut(3).start(&["--join", &token]).unwrap();
    for machine in lab.machines() {
        machine.sees(4, PATIENCE).unwrap();
    }
    assert!(!lab.machine(0).log().contains("panicked"));
}
