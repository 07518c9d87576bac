//! `rialto image`.

mod import;
mod pull;

use rialto_client::Client;
use rialto_protocol::api::{FreedRow, ImageRow};

use crate::args::{Format, Image};
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::{human, table};

pub async fn image(client: &Client, out: Output, image: Image) -> Result<(), Failure> {
    match image {
        Image::Ls => {
            let images = client.images().await?.data.images;
            if images.is_empty() {
                say("no images yet; add one by 'rialto image pull NAME' or 'rialto image import DIR', or use 'host'");
            }
            out.data(&images, || rows(&images))
        }
        Image::Import { path, name } => {
            let image = import::import(client, &path, name).await?;
            say(format!("{} is imported: {}, {}", image.name, human::bytes(image.bytes), short(&image.digest)));
            out.data(&image, String::new)
        }
        Image::Pull { name } => {
            let image = pull::pull(client, &name, matches!(out.format, Format::Json)).await?;
            say(format!("{} is here: {}, {}", image.name, human::bytes(image.bytes), short(&image.digest)));
            out.data(&image, String::new)
        }
        Image::Rm { names, force } => {
            let (mut all, mut failed) = (Vec::new(), None);
            for name in names {
                match client.remove_image(&name, force).await {
                    Ok(answer) => all.extend(answer.data.machines),
                    // The others go all the same.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            freed(out, &all)?;
            failed.map_or(Ok(()), |error| Err(error.into()))
        }
        Image::Gc { unused } => freed(out, &client.collect_images(unused).await?.data.machines),
    }
}

/// Says what was given back where; fails where a machine could not be asked.
fn freed(out: Output, machines: &[FreedRow]) -> Result<(), Failure> {
    for row in machines.iter().filter(|row| row.error.is_none()) {
        let images = if row.images.is_empty() { String::new() } else { format!("{} and ", row.images.join(", ")) };
        say(format!("{}: {images}{} given back", row.machine, human::bytes(row.bytes)));
    }
    out.data(machines, String::new)?;
    let failed: Vec<String> =
        machines.iter().filter_map(|row| Some(format!("{}: {}", row.machine, row.error.as_ref()?))).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Failed, failed.join("; "))) }
}

fn rows(images: &[ImageRow]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let cells = |image: &ImageRow| {
        let machines = image.machines.join(", ");
        vec![image.name.clone(), short(&image.digest), human::bytes(image.bytes), machines]
    };
    table::table(&["NAME", "DIGEST", "SIZE", "MACHINES"], &[], &images.iter().map(cells).collect::<Vec<_>>())
}

fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}
