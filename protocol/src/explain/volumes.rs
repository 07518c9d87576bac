//! Volumes and secrets as people see them: where each is, who uses it, and what waits for one.

use super::words::time;
use crate::api::{LoginRow, SecretRow, VolumeRow};
use crate::ids::{AppId, KeyId, PeerId, VolumeId};
use crate::membership::State;
use crate::model::container::unallowed;
use crate::model::secret::{Duty, Sealed, Secret, registry_of};
use crate::model::{AppSpec, Executor, Machine, ServiceSpec, Volume};
use crate::rfc3339::rfc3339;
use crate::view::View;

/// A volume, and the machine to ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeAt {
    pub volume: Volume,
    pub owner: PeerId,
    pub machine: String,
    /// Whether the machine is held for alive.
    pub reachable: bool,
    /// Whether it is the one of its name that tasks use; else it was given up.
    pub counts: bool,
}

impl VolumeAt {
    fn words(&self) -> String {
        format!("{} on {}, made {}", self.volume.id.hex(), self.machine, rfc3339(self.volume.made_at))
    }
}

/// Why no volume is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVolume {
    #[error("volume {0} is not known")]
    Missing(String),
    /// Of that name there are some, which count no more.
    #[error("volume {name} was given up: {}", listed(.all))]
    GivenUp { name: String, all: Vec<VolumeAt> },
    /// Which one must be said.
    #[error("more than one volume {name} is there: {}", listed(.all))]
    Several { name: String, all: Vec<VolumeAt> },
}

impl NoVolume {
    /// What somebody can do who means one.
    pub fn way_out(&self) -> &'static str {
        match self {
            NoVolume::Missing(_) => "'rialto volume ls' lists them",
            NoVolume::GivenUp { .. } => "name its machine with --machine, or the volume by its id",
            NoVolume::Several { .. } => "name the one that is meant by its id",
        }
    }
}

/// The most of several volumes that are told of.
const LISTED_MAX: usize = 8;

fn listed(all: &[VolumeAt]) -> String {
    let words: Vec<String> = all.iter().take(LISTED_MAX).map(VolumeAt::words).collect();
    words.join("; ")
}

impl View<'_> {
    /// Why tasks of a service wait for a volume; `None`: they do not.
    pub(crate) fn waits_for_volume(&self, app: &AppId, spec: &ServiceSpec) -> Option<String> {
        for (name, is_external) in spec.container.mounts.names(app) {
            let Some((holder, _)) = self.brain.holder(&name) else {
                if is_external {
                    return Some(format!("there is no volume {name}; `rialto volume create {name}` makes it"));
                }
                continue;
            };
            let machine = self.brain.machine_name(&holder);
            if self.brain.members.state(&holder) == State::Down {
                let since = self.brain.members.since(&holder).map_or(0, |since| self.now.ms.saturating_sub(since));
                let way_out = format!("`rialto volume release {name}` gives it up");
                return Some(format!("volume {name} is on {machine}, down for {}; {way_out}", time(since)));
            }
            if self.brain.readings.machines.get(&holder).is_some_and(|machine| machine.draining) {
                return Some(format!("volume {name} is on {machine}, which is being drained"));
            }
        }
        None
    }

    /// The first service whose folders no machine would show it, and what the machines say; `None`: there is none, or
    /// there is no machine to ask.
    pub fn unallowed_folder(&self, spec: &AppSpec) -> Option<(String, String)> {
        const MACHINES_MAX: usize = 8;
        let departed = &self.brain.readings.departed;
        let machines: Vec<&Machine> = self
            .brain
            .readings
            .machines
            .iter()
            .filter(|(peer, machine)| {
                !departed.contains_key(*peer) && !matches!(machine.executor, Executor::None(_) | Executor::Null)
            })
            .map(|(_, machine)| &**machine)
            .collect();
        if machines.is_empty() {
            return None;
        }
        spec.services.iter().find_map(|(name, service)| {
            let asks: Vec<String> = service.container.mounts.asks().collect();
            if machines.iter().any(|machine| unallowed(&asks, &machine.allows).is_none()) {
                return None;
            }
            let says = |machine: &&Machine| {
                let shown: Vec<&str> = machine.allows.iter().filter_map(|allow| allow.strip_prefix("bind=")).collect();
                let shown = if shown.is_empty() { "no folder".into() } else { shown.join(", ") };
                format!("{} shows {shown}", machine.name)
            };
            let mut said: Vec<String> = machines.iter().map(says).collect();
            said.sort();
            let more = said.len().saturating_sub(MACHINES_MAX);
            said.truncate(MACHINES_MAX);
            said.extend((more > 0).then(|| format!("and {more} more do not either")));
            let folders: Vec<&str> = asks.iter().filter_map(|ask| ask.strip_prefix("bind=")).collect();
            let wants = folders.join(", ");
            Some((name.clone(), format!("no machine shows {name} what it asks for, {wants}: {}", said.join("; "))))
        })
    }

    /// Where the volumes of a service hold its tasks.
    pub(crate) fn held_by_volumes(&self, app: &AppId, spec: &ServiceSpec) -> Vec<String> {
        let said = spec.container.mounts.names(app).map(|(name, _)| match self.brain.holder(&name) {
            Some((holder, _)) => {
                format!(
                    "volume {name} is on {}: its tasks run there and nowhere else",
                    self.brain.machine_name(&holder)
                )
            }
            None => format!("volume {name} is made where the first task starts: the others go there"),
        });
        said.collect()
    }

    /// Sentences about services that wait for volumes.
    pub(crate) fn volume_remarks(&self) -> Vec<String> {
        const SENTENCES_MAX: usize = 20;
        let services = self.living().flat_map(|(app, document)| {
            let services = document.spec.services.iter().filter(|(_, spec)| spec.container.mounts.has_named());
            services.filter(|(_, spec)| spec.replicas > 0).map(move |(name, spec)| (app, name, spec))
        });
        let said = services.filter_map(|(app, name, spec)| {
            Some(format!("{}.{name} waits: {}", app.name, self.waits_for_volume(app, spec)?))
        });
        said.take(SENTENCES_MAX).collect()
    }

    /// The volume that is meant by its name: the one that counts; with a machine the one there that was given up, or else
    /// the one that counts and lies there. What is no name may be an id.
    ///
    /// # Errors
    ///
    /// None is meant, or several are.
    pub fn volume(&self, name: &str, machine: Option<&PeerId>) -> Result<VolumeAt, NoVolume> {
        let here = |owner: &PeerId| machine.is_none_or(|machine| machine == owner);
        let all = || self.brain.readings.volumes.iter().filter(|(owner, _)| here(owner));
        let at = |(owner, volume): (&PeerId, &Volume)| VolumeAt {
            volume: volume.clone(),
            owner: *owner,
            machine: self.brain.machine_name(owner),
            reachable: self.brain.members.state(owner) <= State::Suspect,
            counts: self.brain.volume_counts(owner, volume),
        };
        let named: Vec<VolumeAt> = all().filter(|(_, volume)| volume.name == name).map(at).collect();
        let (mut counting, mut given_up): (Vec<_>, Vec<_>) = named.into_iter().partition(|one| one.counts);
        let several = |all: Vec<VolumeAt>| NoVolume::Several { name: name.into(), all };
        match (machine, counting.pop(), given_up.len()) {
            (None, Some(one), _) | (Some(_), Some(one), 0) => return Ok(one),
            (Some(_), _, 1) => return given_up.pop().ok_or_else(|| NoVolume::Missing(name.into())),
            (Some(_), _, 2..) => return Err(several(given_up)),
            (None, None, 1..) => return Err(NoVolume::GivenUp { name: name.into(), all: given_up }),
            (_, None, 0) => {}
        }
        let id = VolumeId::from_hex(name).ok_or_else(|| NoVolume::Missing(name.into()))?;
        let mut of_id: Vec<VolumeAt> = all().filter(|(_, volume)| volume.id == id).map(at).collect();
        match of_id.len() {
            // Only who makes up records makes two of one id.
            2.. => Err(several(of_id)),
            _ => of_id.pop().ok_or_else(|| NoVolume::Missing(name.into())),
        }
    }

    /// Every volume that is known of, by name.
    pub fn volumes(&self) -> Vec<VolumeRow> {
        let row = |(owner, volume): (&PeerId, &Volume)| {
            let counts = self.brain.volume_counts(owner, volume);
            let state = match self.brain.members.state(owner) {
                State::Left => "gone",
                _ if !counts => "given up",
                State::Down => "down",
                State::Alive | State::Suspect => "here",
            };
            VolumeRow {
                name: volume.name.clone(),
                id: volume.id.hex(),
                machine: self.brain.machine_name(owner),
                state: state.into(),
                made_at: rfc3339(volume.made_at),
                services: if counts { self.brain.services_with(&volume.name) } else { Vec::new() },
                bytes: None,
                files: None,
                path: None,
            }
        };
        let mut rows: Vec<VolumeRow> = self.brain.readings.volumes.iter().map(row).collect();
        rows.sort_by(|one, other| (&one.name, &one.machine, &one.id).cmp(&(&other.name, &other.machine, &other.id)));
        rows
    }

    /// The ids of this peer's own volumes.
    pub fn own_volumes(&self) -> Vec<Volume> {
        self.brain.readings.volumes.of(&self.brain.me).cloned().collect()
    }

    /// Every secret that is set, by name.
    pub fn secrets(&self) -> Vec<SecretRow> {
        let row = |secret: &Secret| SecretRow {
            name: secret.name.clone(),
            set_at: rfc3339(secret.at),
            services: self.services_with_secret(&secret.name),
        };
        let secrets = self.brain.readings.secrets.iter();
        secrets.filter(|secret| registry_of(&secret.name).is_none()).map(row).collect()
    }

    /// The registries that people have logged in at.
    pub fn logins(&self) -> Vec<LoginRow> {
        let row = |secret: &Secret| {
            Some(LoginRow { registry: registry_of(&secret.name)?.to_string(), set_at: rfc3339(secret.at) })
        };
        self.brain.readings.secrets.iter().filter_map(row).collect()
    }

    fn services_with_secret(&self, name: &str) -> Vec<String> {
        use crate::model::volume::Content;
        let mut found = Vec::new();
        for (app, document) in self.living() {
            for (service, spec) in &document.spec.services {
                let is_it =
                    |content: &Content| matches!(content, Content::Sealed(named) if named.of(&app.name) == name);
                if spec.container.mounts.files.iter().any(|file| is_it(&file.content)) {
                    found.push(format!("{}/{service}", app.name));
                }
            }
        }
        found
    }

    /// A secret, sealed, with its key as this peer can open it.
    pub fn secret(&self, name: &str) -> Option<(Secret, Option<Sealed>)> {
        let secret = self.brain.readings.secrets.get(name)?;
        Some((secret.clone(), self.sealed_key(&secret.key)))
    }

    /// A key as this peer can open it.
    pub fn sealed_key(&self, key: &KeyId) -> Option<Sealed> {
        self.brain.readings.secrets.sealed_to(key, &self.brain.me).cloned()
    }

    /// The key to seal under; `None`: there is none yet.
    pub fn secret_key(&self) -> Option<KeyId> {
        self.brain.current_key()
    }

    /// When a key was made; 0: it is new.
    pub fn secret_key_made(&self, key: &KeyId) -> u64 {
        self.brain.readings.secrets.made_at(key)
    }

    /// A task of this machine that uses a volume.
    pub fn volume_user(&self, id: &VolumeId) -> Option<String> {
        self.brain.user_of(id).map(|claim| self.brain.bidder.claims[&claim].claim.task.to_string())
    }

    /// Those whom a new key is to be sealed to.
    pub fn secret_readers(&self) -> Vec<PeerId> {
        self.brain.readers().into_iter().collect()
    }

    /// What this peer has to seal for others.
    pub fn secret_duty(&self) -> Duty {
        self.brain.duty()
    }
}
