//! `rialto volume`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use rialto_client::Client;
use rialto_protocol::api::{ErrorCode, VolumeRow};
use rialto_protocol::session::Open;

use super::cp::{pour, push};
use crate::args::{OneVolume, Volume};
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::{ask, human, table};

/// The state of a volume that counts no more.
const GIVEN_UP: &str = "given up";

pub async fn volume(client: &Client, out: Output, volume: Volume) -> Result<(), Failure> {
    match volume {
        Volume::Ls => {
            let volumes = client.volumes().await?.data.volumes;
            if volumes.is_empty() {
                say("no volumes yet; 'volumes:' in an app file names them");
            }
            out.data(&volumes, || rows(&volumes))
        }
        Volume::Inspect(OneVolume { name, machine }) => {
            let row = client.volume(&name, machine.as_deref()).await?.data;
            out.data(&row, || inspected(&row))
        }
        Volume::Create { name, machine } => {
            let row = client.make_volume(&name, machine.as_deref()).await?.data;
            say(format!("volume {name} is on {}", row.machine));
            out.data(&row, String::new)
        }
        Volume::Rm { names, machine, force, yes } => {
            let mut removed = Vec::new();
            for name in names {
                if ask::somebody_is_there() && !yes {
                    ask::confirm(&format!("delete volume {name} with everything in it?"), yes)?;
                }
                let row = client.remove_volume(&name, machine.as_deref(), force).await?.data;
                say(format!("volume {} is deleted from {}", row.name, row.machine));
                removed.push(row);
            }
            out.data(&removed, String::new)
        }
        Volume::Release { name, yes } => {
            if ask::somebody_is_there() && !yes {
                let row = client.volume(&name, None).await?.data;
                let question =
                    format!("give up what volume {name} holds on {}, and begin with an empty one?", row.machine);
                ask::confirm(&question, yes)?;
            }
            let row = client.release_volume(&name).await?.data;
            say(format!("volume {name} of {} is given up", row.machine));
            out.data(&row, String::new)
        }
        Volume::Backup { volume, file } => backup(client, &volume, &file).await,
        Volume::Restore { volume, file } => restore(client, &volume, &file).await,
    }
}

async fn backup(client: &Client, volume: &OneVolume, file: &Path) -> Result<(), Failure> {
    let OneVolume { name, machine } = volume;
    let to_stdout = file == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage("an archive does not belong on a terminal: name a file, or redirect it"));
    }
    let (mut hearing, _saying) =
        client.volume_session(name, machine.as_deref(), Open::Read { path: "/".into() }).await?;
    if to_stdout {
        return pour(&mut hearing, |bytes| async move { io::stdout().lock().write_all(&bytes) }).await;
    }
    let wrong = |error: io::Error| Failure::new(Exit::Failed, format!("{}: {error}", file.display()));
    // Whole or not at all: a backup that broke off must not look like one.
    let partial = file.with_extension("partial");
    let mut archive = File::create(&partial).map_err(wrong)?;
    let poured = pour(&mut hearing, |bytes| {
        let written = archive.write_all(&bytes);
        async move { written }
    })
    .await;
    let kept = poured.and_then(|()| archive.sync_all().and_then(|()| std::fs::rename(&partial, file)).map_err(wrong));
    if kept.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    kept
}

async fn restore(client: &Client, volume: &OneVolume, file: &Path) -> Result<(), Failure> {
    let OneVolume { name, machine } = volume;
    let archive: Box<dyn io::Read + Send> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => {
            let wrong = |error: io::Error| Failure::new(Exit::NotFound, format!("{}: {error}", file.display()));
            Box::new(File::open(file).map_err(wrong)?)
        }
    };
    match client.volume(name, machine.as_deref()).await {
        Ok(found) if found.data.state == GIVEN_UP => {
            let message = format!("volume {name} on {} was given up: no task would read it", found.data.machine);
            return Err(Failure::new(Exit::Refused, message).hint("without --machine the one that counts is restored"));
        }
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::NotFound) => {
            let row = client.make_volume(name, machine.as_deref()).await?.data;
            say(format!("volume {name} is made on {}", row.machine));
        }
        Err(error) => return Err(error.into()),
    }
    let open = Open::Write { path: "/".into(), kept: true };
    let (hearing, saying) = client.volume_session(name, machine.as_deref(), open).await?;
    push(hearing, saying, move |mut outlet| {
        let mut archive = archive;
        io::copy(&mut archive, &mut outlet)?;
        outlet.flush()
    })
    .await
}

fn rows(volumes: &[VolumeRow]) -> String {
    if volumes.is_empty() {
        return String::new();
    }
    let cells =
        |row: &VolumeRow| vec![row.name.clone(), row.machine.clone(), row.state.clone(), row.services.join(", ")];
    table::table(&["NAME", "MACHINE", "STATE", "SERVICES"], &[], &volumes.iter().map(cells).collect::<Vec<_>>())
}

fn inspected(row: &VolumeRow) -> String {
    let mut lines = vec![
        format!("name      {}", row.name),
        format!("id        {}", row.id),
        format!("machine   {}", row.machine),
        format!("state     {}", row.state),
        format!("made      {}", row.made_at),
        format!("services  {}", if row.services.is_empty() { "none".into() } else { row.services.join(", ") }),
    ];
    if let (Some(bytes), Some(files)) = (row.bytes, row.files) {
        lines.push(format!("holds     {} in {}", human::bytes(bytes), human::count(files, "file")));
    }
    lines.extend(row.path.as_ref().map(|path| format!("lies at   {path}")));
    lines.join("\n") + "\n"
}
