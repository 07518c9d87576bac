//! How records come to all: pushed once over each standing link to whom they are news, and compared now and then.

use std::sync::Arc;

use rialto_protocol::membership::Member;

use super::{COMMIT_US, COMPARE_US, Cluster, Event, Happening, Say};
use crate::news::Record;

/// The links over which news are pushed that are not of life and death.
const EAGER: usize = 3;
/// A gap is asked about at most this often, µs.
const PULL_AGAIN_US: u64 = 300_000;

impl Cluster {
    /// What is known already ends before membership hears of it, as it does before the brain.
    pub(super) fn is_news(&self, machine: usize, event: &Event) -> bool {
        match event {
            Event::Said { say: Say::Frame { owner, seq } | Say::Told { owner, seq }, .. } => {
                *owner != machine && !self.nodes[machine].shelf.has(*owner, *seq)
            }
            _ => true,
        }
    }

    pub(super) fn hear(&mut self, machine: usize, from: usize, say: Say) {
        let now = self.now();
        match say {
            Say::Heartbeat { life } => {
                let id = self.ids[from];
                self.nodes[machine].members.heard(now, &id, life);
            }
            Say::Frame { owner, seq } => {
                self.nodes[machine].shelf.take(owner, seq);
                self.push(machine, from, owner, seq);
                self.read(machine, owner, seq);
                let complete = self.nodes[machine].shelf.complete(owner);
                if complete < seq {
                    self.pull_gap(machine, from, owner, complete);
                }
            }
            Say::Told { owner, seq } => {
                self.nodes[machine].shelf.take(owner, seq);
                self.read_late(machine, owner, seq);
            }
            Say::Compare { sum } => {
                let shelf = &self.nodes[machine].shelf;
                if shelf.sum() != sum {
                    let digest = Say::Digest(Arc::new(shelf.digest()));
                    self.say(machine, from, digest);
                }
            }
            Say::Digest(theirs) => {
                let (lacks, has) = self.nodes[machine].shelf.differences(&theirs);
                if !lacks.is_empty() {
                    self.say(machine, from, Say::Pull(lacks));
                }
                if !has.is_empty() {
                    self.say(machine, from, Say::Records(has));
                }
            }
            Say::Pull(wanted) => {
                let shelf = &self.nodes[machine].shelf;
                let has = wanted.into_iter().map(|(owner, after)| (owner, after, shelf.complete(owner)));
                let has: Vec<_> = has.filter(|(_, after, through)| after < through).collect();
                if !has.is_empty() {
                    self.say(machine, from, Say::Records(has));
                }
            }
            Say::Records(all) => {
                for (owner, after, through) in all.into_iter().filter(|(owner, ..)| *owner != machine) {
                    for seq in after + 1..=through {
                        if self.nodes[machine].shelf.take(owner, seq) {
                            self.read_late(machine, owner, seq);
                        }
                    }
                }
            }
        }
    }

    /// Membership hears of a record, unless a later one of the same key is here already.
    pub(super) fn read(&mut self, machine: usize, owner: usize, seq: u32) {
        let now = self.now();
        let shelf = &self.nodes[machine].shelf;
        if self.log.is_outdated(owner, seq, |later| shelf.has(owner, later)) {
            return;
        }
        let id = self.ids[owner];
        match self.log.get(owner, seq) {
            Record::Machine { life } => {
                let member = Member { id, rack: None, life, restarting_until: None, draining: false };
                self.nodes[machine].members.upsert(now, member);
            }
            Record::Verdict { subject, life } => {
                let subject = self.ids[subject];
                self.nodes[machine].members.verdict(now, &id, &subject, life);
            }
            Record::Withdrawn { .. } => {}
        }
    }

    /// Reads what came by no frame, and hands it on where it matters to somebody's life.
    pub(super) fn read_late(&mut self, machine: usize, owner: usize, seq: u32) {
        let members = &self.nodes[machine].members;
        let matters = match self.log.get(owner, seq) {
            Record::Machine { life } => members.is_relief(&self.ids[owner], life),
            Record::Verdict { subject, life } => members.is_charge(&self.ids[subject], life),
            Record::Withdrawn { .. } => false,
        };
        self.read(machine, owner, seq);
        if matters {
            let to: Vec<usize> = self.nodes[machine].links.iter().copied().filter(|to| *to != owner).collect();
            for to in to {
                self.say(machine, to, Say::Told { owner, seq });
            }
        }
    }

    pub(super) fn pull_gap(&mut self, machine: usize, from: usize, owner: usize, complete: u32) {
        let now_us = self.queue.now_us();
        let asked = &mut self.nodes[machine].asked_us;
        asked.retain(|(_, until_us)| *until_us > now_us);
        if asked.iter().all(|(other, _)| *other != owner) {
            asked.push((owner, now_us + PULL_AGAIN_US));
            self.say(machine, from, Say::Pull(vec![(owner, complete)]));
        }
    }

    /// Writes an own record; it leaves when it is durable.
    pub(super) fn write(&mut self, machine: usize, record: Record) {
        let seq = self.log.write(machine, record);
        let at_us = self.queue.now_us() + COMMIT_US + self.air.dice.below(COMMIT_US);
        self.queue.schedule(at_us, Happening::Arrive { machine, event: Event::Durable { seq } });
    }

    /// What tells of life and death goes over every link; the rest over little more than a tree.
    pub(super) fn push(&mut self, machine: usize, from: usize, owner: usize, seq: u32) {
        let most = match self.log.get(owner, seq) {
            Record::Withdrawn { .. } => EAGER,
            Record::Machine { .. } | Record::Verdict { .. } => usize::MAX,
        };
        let to = self.nodes[machine].links.iter().copied().take(most).filter(|to| *to != from && *to != owner);
        for to in to.collect::<Vec<_>>() {
            self.say(machine, to, Say::Frame { owner, seq });
        }
    }

    pub(super) fn compare(&mut self, machine: usize) {
        if self.nodes[machine].dead {
            return;
        }
        let again_us = self.queue.now_us() + COMPARE_US + self.air.dice.below(COMPARE_US / 2);
        self.queue.schedule(again_us, Happening::Compare { machine });
        let members = &self.nodes[machine].members;
        let nth = self.air.dice.below(members.live_count() as u64) as usize;
        let with = members.live().nth(nth).map(|id| self.at(&id));
        if let Some(with) = with.filter(|with| *with != machine && !self.nodes[machine].paused) {
            let sum = self.nodes[machine].shelf.sum();
            self.say(machine, with, Say::Compare { sum });
        }
    }
}
