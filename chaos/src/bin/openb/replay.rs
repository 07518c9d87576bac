//! One replay: tasks arrive one after another, each is sold on the production market.
//!
//! The machines are production bidders with their own accounts; who is asked is chosen on the readings of
//! a ledger that lags; what runs reaches that ledger as claims. Nothing ends, so a task that found no
//! room stays waiting, as in the published experiment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use anyhow::{Context, bail};
use rialto_protocol::event::Now;
use rialto_protocol::ids::{AppId, BidId, ClaimId, PeerId, TaskId};
use rialto_protocol::ledger::readings::{Pending, Readings, Stewardship};
use rialto_protocol::market::auction::{Auction, BIDS_MS, Candidate, choose, cost_by, decide, summary};
use rialto_protocol::market::bidder::{Answer, Bidder, Images};
use rialto_protocol::market::constraint;
use rialto_protocol::market::crowd::Crowd;
use rialto_protocol::market::wire::{Award, Slot, Solicit};
use rialto_protocol::model::{Claim, ClaimState, Executor, Machine, Resources, TaskSpec};
use rialto_sim::Dice;

use super::account::Account;
use super::trace::{Host, Task};

const IMAGE: &str = "host";
const SERVICE: &str = "task";

/// How a replay is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many bids a steward wants.
    pub bids: usize,
    /// How many machines it asks in one auction at most, in place of those who declined.
    pub asked_max: usize,
    /// How many placements the ledger's view is behind.
    pub lag: usize,
    pub seed: u64,
}

/// What came of one replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub gpu_milli_total: u64,
    pub gpu_milli_allocated: u64,
    pub tasks: u64,
    pub waiting: u64,
    pub asked: u64,
    pub declined: u64,
}

impl Outcome {
    /// The percentage of all GPUs that is allocated.
    pub fn percent(&self) -> f64 {
        100.0 * self.gpu_milli_allocated as f64 / self.gpu_milli_total.max(1) as f64
    }

    /// Machines asked for each task.
    pub fn asked_per_task(&self) -> f64 {
        self.asked as f64 / self.tasks.max(1) as f64
    }
}

/// News that is on its way to the ledger.
enum News {
    Claim(PeerId, Box<Claim>),
    Waits(Box<(AppId, Stewardship)>),
}

struct Replay<'a> {
    hosts: &'a [Host],
    settings: Settings,
    dice: Dice,
    view: Readings,
    bidders: BTreeMap<PeerId, Bidder>,
    /// Machines by identity.
    places: BTreeMap<PeerId, usize>,
    account: Account,
    news: VecDeque<News>,
    /// Claims among the news.
    behind: usize,
    now_ms: u64,
    outcome: Outcome,
}

/// Lets tasks arrive until they ask for as much as all GPUs.
///
/// # Errors
///
/// A broken promise: a machine gave away more than it has.
pub fn replay(hosts: &[Host], tasks: &[Task], settings: Settings) -> anyhow::Result<Outcome> {
    let mut replay = Replay::new(hosts, settings);
    let mut dice = Dice::new(settings.seed, "arrivals");
    let order = dice.sample(tasks.len(), tasks.len());
    let mut arrived = 0;
    for number in 0.. {
        // A list that is too short is drawn from again.
        let at = order.get(number).copied().unwrap_or_else(|| dice.below(tasks.len() as u64) as usize);
        let task = &tasks[at];
        if arrived + task.gpu_milli > replay.outcome.gpu_milli_total {
            break;
        }
        arrived += task.gpu_milli;
        replay.arrive(number as u64, task)?;
    }
    replay.account.check_against(replay.bidders.iter().map(|(peer, bidder)| (replay.places[peer], bidder)))?;
    Ok(replay.outcome)
}

impl<'a> Replay<'a> {
    fn new(hosts: &'a [Host], settings: Settings) -> Self {
        let mut dice = Dice::new(settings.seed, "market");
        let mut replay = Self {
            hosts,
            settings,
            view: Readings::default(),
            bidders: BTreeMap::new(),
            places: BTreeMap::new(),
            account: Account::new(hosts),
            news: VecDeque::new(),
            behind: 0,
            now_ms: 1,
            outcome: Outcome::default(),
            dice: dice.clone(),
        };
        for (place, host) in hosts.iter().enumerate() {
            let peer = PeerId(dice.bytes());
            replay.places.insert(peer, place);
            let machine = machine(host);
            let mut bidder = Bidder::default();
            bidder.describe(&machine);
            replay.bidders.insert(peer, bidder);
            replay.view.machines.insert(peer, machine.into());
            replay.outcome.gpu_milli_total += host.gpus * 1000;
        }
        replay.dice = dice;
        replay
    }

    fn arrive(&mut self, number: u64, task: &Task) -> anyhow::Result<()> {
        self.outcome.tasks += 1;
        self.now_ms += BIDS_MS;
        let solicit = Solicit {
            auction: number,
            app: AppId { namespace: "default".into(), name: format!("task-{number}"), generation: 1 },
            service: SERVICE.into(),
            count: 1,
            need: task.need.clone(),
            image: IMAGE.into(),
            constraints: task.constraints.clone(),
            deadline_ms: BIDS_MS,
            ..Solicit::default()
        };
        let mut asked = self.choose(&solicit);
        asked.truncate(self.settings.asked_max);
        let next = asked.split_off(self.settings.bids.min(asked.len())).into();
        let mut auction = Auction {
            app: solicit.app.clone(),
            service: SERVICE.into(),
            revision: 1,
            former: None,
            slots: vec![Slot { slot: "1".into(), attempt: 1, of: 0 }],
            solicit: Arc::new(solicit),
            wanted: self.settings.bids,
            asked: asked.iter().copied().collect::<BTreeSet<_>>(),
            next,
            bids: BTreeMap::new(),
            declines: BTreeMap::new(),
            deadline_ms: self.now_ms + BIDS_MS,
            alone: false,
            moves: false,
        };
        self.hear(&mut auction, asked);
        self.decide(&auction, task)?;
        while self.behind > self.settings.lag {
            self.spread();
        }
        Ok(())
    }

    /// Whom the steward asks, as it does in production.
    fn choose(&mut self, solicit: &Solicit) -> Vec<PeerId> {
        let mix = self.view.mix();
        let view = &self.view;
        let allowed =
            |machine: &Machine| constraint::unmet(&solicit.constraints, &machine.name, &machine.labels).is_none();
        let machines = view.machines.iter().filter(|(_, machine)| allowed(machine));
        let candidates = machines
            .map(|(peer, machine)| Candidate::of(*peer, &machine.capacity, view.used(peer), &solicit.need, 1))
            .collect();
        let dice = &mut self.dice;
        choose(candidates, self.settings.bids, cost_by(view, &solicit.need, &mix), || dice.number())
    }

    /// Asks, and hears everybody out.
    fn hear(&mut self, auction: &mut Auction, mut ask: Vec<PeerId>) {
        let mix = self.view.mix();
        let images = Images { known: true, present: true, name: IMAGE };
        // Every machine is a peer, and any may be the steward.
        let steward = PeerId([0; 32]);
        while let Some(peer) = ask.pop() {
            self.outcome.asked += 1;
            let Some(bidder) = self.bidders.get_mut(&peer) else { continue };
            bidder.mix = mix.clone();
            let bid = BidId(self.dice.bytes());
            let now = Now { ms: self.now_ms, wall: self.now_ms };
            match bidder.solicited(now, steward, &auction.solicit, auction.deadline_ms, images, bid) {
                Answer::Bid(bid) => {
                    auction.bids.insert(peer, bid);
                }
                Answer::Decline(decline) => {
                    self.outcome.declined += 1;
                    auction.declines.insert(peer, decline.reason);
                    ask.extend(auction.instead());
                }
                Answer::Later => {}
            }
        }
    }

    fn decide(&mut self, auction: &Auction, task: &Task) -> anyhow::Result<()> {
        let awards = decide(&auction.slots, &auction.bids, Crowd::default(), |_| None);
        let winner = awards.iter().next().map(|(peer, (bid, _))| (*peer, *bid));
        for (peer, bid) in &auction.bids {
            if Some(*peer) != winner.map(|(winner, _)| winner)
                && let Some(bidder) = self.bidders.get_mut(peer)
            {
                bidder.released(&bid.bid);
            }
        }
        let Some((peer, bid)) = winner else {
            self.outcome.waiting += 1;
            self.news.push_back(News::Waits(Box::new((auction.app.clone(), waits(auction)))));
            return Ok(());
        };
        let bidder = self.bidders.get_mut(&peer).context("a stranger won")?;
        let Some(reservation) = bidder.reservation(&bid).cloned() else { bail!("the winner has no reservation") };
        let claim = claim(auction, bid, ClaimId(self.dice.bytes()), reservation.need_of(0), self.now_ms);
        self.account.take(self.hosts, self.places[&peer], &claim.need, &task.need)?;
        bidder.accept(&award(auction, bid), vec![(claim.clone(), spec(&claim))], None);
        self.outcome.gpu_milli_allocated += task.gpu_milli;
        self.news.push_back(News::Claim(peer, Box::new(claim)));
        self.behind += 1;
        Ok(())
    }

    /// The oldest news reaches the ledger.
    fn spread(&mut self) {
        match self.news.pop_front() {
            Some(News::Claim(peer, claim)) => {
                self.behind -= 1;
                self.view.claim(self.now_ms, peer, claim.id, Some(Arc::from(claim)));
            }
            Some(News::Waits(news)) => self.view.stewardship(PeerId([0; 32]), news.0, news.1),
            None => self.behind = 0,
        }
    }
}

fn machine(host: &Host) -> Machine {
    Machine {
        name: host.name.clone(),
        addresses: Vec::new(),
        labels: host.labels.clone(),
        capacity: host.capacity.clone(),
        allows: Vec::new(),
        protocol: 1,
        version: String::new(),
        life: 1,
        life_since: 0,
        draining: false,
        restarting_until: None,
        executor: Executor::Null,
        network: None,
    }
}

fn waits(auction: &Auction) -> Stewardship {
    let pending = Pending {
        service: SERVICE.into(),
        count: 1,
        need: auction.solicit.need.clone(),
        priority: 0,
        rank: auction.solicit.rank,
        reasons: summary(&auction.declines),
    };
    Stewardship { pending: vec![pending], ..Stewardship::default() }
}

fn claim(auction: &Auction, bid: BidId, id: ClaimId, need: Resources, now_ms: u64) -> Claim {
    let task = TaskId { app: auction.app.clone(), service: SERVICE.into(), slot: auction.slots[0].slot.clone() };
    Claim {
        id,
        task,
        attempt: 1,
        bid,
        revision: auction.revision,
        state: ClaimState::Running,
        need,
        accepted_at: now_ms,
        started_at: Some(now_ms),
        ..Claim::default()
    }
}

fn award(auction: &Auction, bid: BidId) -> Award {
    Award {
        auction: auction.solicit.auction,
        bid,
        app: auction.app.clone(),
        service: SERVICE.into(),
        revision: auction.revision,
        slots: auction.slots.clone(),
        image: IMAGE.into(),
        ..Award::default()
    }
}

fn spec(claim: &Claim) -> TaskSpec {
    TaskSpec { task: claim.task.clone(), attempt: claim.attempt, image: IMAGE.into(), ..TaskSpec::default() }
}
