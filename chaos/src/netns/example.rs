//! The app of `examples/web` in a lab, as demo, bench and tests all use it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Lab, Machine, Result, run, until};

/// What DNS calls the example's service.
pub const WEB: &str = "web.shop.rialto.internal";
/// The replicas that its file asks for.
pub const REPLICAS: usize = 3;

/// A file of the folder `examples`.
pub fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path)
}

/// What became of the service after the death of a machine, reckoned from the moment at which its wire
/// went. The slowest survivor counts.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// The addresses of the dead machine's tasks are gone from DNS.
    pub gone_from_dns: Duration,
    /// All replicas are found by name again, and answer.
    pub answering: Duration,
}

impl Lab {
    /// Builds the image of `examples/web`: the folder that it lies in.
    pub fn build_web(&self) -> Result<PathBuf> {
        let folder = self.folder().join("web-image");
        if !folder.exists() {
            run(example("web/build.sh").to_string_lossy().as_ref(), &[&folder])?;
        }
        Ok(folder)
    }

    /// Imports the image of `examples/web` at one machine.
    pub fn import_web(&self, at: usize) -> Result<()> {
        let folder = self.build_web()?;
        self.machine(at).done(&["image", "import", &folder.to_string_lossy()]).map(drop)
    }

    /// Deploys `examples/web` at one machine and waits until all replicas run; how long that took.
    pub fn deploy_web(&self, at: usize) -> Result<Duration> {
        let file = example("web/compose.yaml");
        Ok(self.machine(at).done(&["deploy", "-f", &file.to_string_lossy()])?.took)
    }

    /// Kills the machine `victim`, and watches the service `name` at all machines in `survivors`
    /// until `replicas` of it answer there.
    pub fn die_and_watch(
        &mut self,
        victim: usize,
        name: &str,
        replicas: usize,
        survivors: &[usize],
        limit: Duration,
    ) -> Result<Death> {
        let rows = self.machine(survivors[0]).ps()?;
        let there = rows.iter().filter(|row| row.machine.as_deref() == Some(self.machine(victim).name()));
        let gone: Vec<IpAddr> = there.filter_map(|row| row.address.as_ref()?.parse().ok()).collect();
        let gone = &gone;
        let began = Instant::now();
        self.die(victim)?;
        let mut death = Death { gone_from_dns: Duration::ZERO, answering: Duration::ZERO };
        let watched = std::thread::scope(|scope| {
            let watch = |survivor: usize| -> Result<(Duration, Duration)> {
                let machine = self.machine(survivor);
                let left = || limit.saturating_sub(began.elapsed());
                let what = format!("the dead machine gone from DNS at {}", machine.name());
                until(&what, left(), || match machine.resolve(name) {
                    Ok(service) if service.addresses.iter().all(|address| !gone.contains(&address.ip())) => Ok(()),
                    other => Err(format!("{other:?}")),
                })?;
                let gone_from_dns = began.elapsed();
                machine.serves(name, replicas, left())?;
                Ok((gone_from_dns, began.elapsed()))
            };
            let watchers: Vec<_> = survivors.iter().map(|survivor| scope.spawn(move || watch(*survivor))).collect();
            watchers.into_iter().map(|watcher| watcher.join()).collect::<Vec<_>>()
        });
        for seen in watched {
            let (gone_from_dns, answering) = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            death.gone_from_dns = death.gone_from_dns.max(gone_from_dns);
            death.answering = death.answering.max(answering);
        }
        Ok(death)
    }
}

impl Machine {
    /// Waits until `name` has exactly `replicas` addresses in this machine's DNS and each of them
    /// answers from here; the answers.
    pub fn serves(&self, name: &str, replicas: usize, limit: Duration) -> Result<Vec<(SocketAddr, String)>> {
        let what = format!("{replicas} × {name} answering at {}", self.name());
        let look = || {
            let service = self.resolve(name).map_err(|error| error.to_string())?;
            if service.addresses.len() != replicas {
                return Err(format!("{} {:?}", service.status, service.addresses));
            }
            let fetch = |address: &SocketAddr| match self.fetch(*address, "/") {
                Ok(page) => Ok((*address, page.trim().to_owned())),
                Err(error) => Err(error.to_string()),
            };
            service.addresses.iter().map(fetch).collect()
        };
        Ok(until(&what, limit, look)?.0)
    }
}
