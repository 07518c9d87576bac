//! A trace that people can read, one line for each thing that happens.

use rialto_protocol::event::Request;
use rialto_protocol::wire::Message;
use rialto_protocol::{Effect, Event};

use crate::trace::Trace;

/// What a brain is told.
pub fn event(trace: &Trace, now_us: u64, machine: &str, event: &Event) {
    let text = match event {
        Event::Woke => return,
        Event::Received { message: Message::Heartbeat { .. } | Message::Vitals(_), .. } => return,
        Event::Received { from, message, verified } => {
            format!("<- {from} {}{}", word(message), if *verified { "" } else { " (unverified)" })
        }
        Event::Request { id, request } => format!("request {id}: {}", request_word(request)),
        Event::Measured { .. } | Event::VitalsSigned { .. } => return,
        Event::Committed { commit, .. } => format!("committed {commit}"),
        other => format!("{other:?}"),
    };
    trace.line(now_us, || format!("{machine:<4} {text}"));
}

/// What a brain wants done.
pub fn effect(trace: &Trace, now_us: u64, machine: &str, effect: &Effect) {
    let text = match effect {
        Effect::Send { message: Message::Heartbeat { .. } | Message::Vitals(_), .. } => return,
        Effect::Send { to, message } => format!("-> {to} {}", word(message)),
        Effect::Commit { commit, drafts, local } => {
            let records: Vec<String> = drafts
                .iter()
                .flat_map(|draft| &draft.records)
                .map(|record| format!("{}:{}@{}", record.key.kind.name(), record.key.id, record.seq))
                .collect();
            let local: Vec<&str> = local.iter().map(|one| one.key.as_str()).collect();
            format!("commit {commit}: {} {local:?}", records.join(" "))
        }
        Effect::Store { ops, token } => format!("store {} ops, token {token:?}", ops.len()),
        Effect::SignVitals { .. } | Effect::Changed { .. } => return,
        Effect::Links { peers } => format!("links {:?}", peers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>()),
        Effect::Members { peers } => format!("members {:?}", peers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>()),
        Effect::Start { claim, spec } => format!("start {claim:?} {} attempt {}", spec.task, spec.attempt),
        Effect::Note { note } => format!("note {} {}: {}", note.what, note.subject, note.text),
        other => format!("{other:?}"),
    };
    trace.line(now_us, || format!("{machine:<4}     {text}"));
}

fn request_word(request: &Request) -> String {
    match request {
        Request::Deploy { app, spec, .. } => {
            let services: Vec<String> = spec
                .services
                .iter()
                .map(|(name, service)| format!("{name}×{} {:?}", service.replicas, service.command))
                .collect();
            format!("deploy {app}: {}", services.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn word(message: &Message) -> String {
    match message {
        Message::Frame(frame) => format!("frame of {} {}..={}", frame.owner, frame.prev + 1, frame.last()),
        Message::Digest { owners, .. } => format!("digest of {} owners", owners.len()),
        Message::Records(records) => {
            let (after, through) = (records.after, records.through);
            format!("{} records of {} after {after} through {through}", records.records.len(), records.owner)
        }
        Message::Keep { token, records } => format!("keep {token}: {} records", records.len()),
        Message::Told(records) => format!("told {} records", records.len()),
        Message::Award(award) => {
            let slots: Vec<&str> = award.slots.iter().map(|slot| slot.slot.as_str()).collect();
            format!("award {}.{} slots {slots:?}", award.app, award.service)
        }
        Message::Solicit(solicit) => format!("solicit {} × {}.{}", solicit.count, solicit.app, solicit.service),
        other => {
            let mut text = format!("{other:?}");
            if text.len() > 160 {
                let cut = (0..=160).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                text.truncate(cut);
            }
            text
        }
    }
}
