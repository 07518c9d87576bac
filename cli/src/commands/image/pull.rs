//! `rialto image pull`: one bar a layer on a terminal, else one line a change.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rialto_client::Client;
use rialto_protocol::api::{ImageRow, LayerRow, PullLine};

use super::short;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::say;

/// Has the peer pull an image, and shows how far it is.
pub async fn pull(client: &Client, name: &str, quiet: bool) -> Result<ImageRow, Failure> {
    let mut lines = client.pull(name).await?;
    let mut shown = Shown::new(quiet);
    while let Some(line) = lines.next().await? {
        match line {
            PullLine::Layer(layer) => shown.layer(&layer),
            PullLine::Pulled(image) => {
                shown.clear();
                return Ok(image);
            }
            PullLine::Failed(body) => {
                shown.clear();
                return Err(rialto_client::Error::Refused(body).into());
            }
        }
    }
    Err(Failure::new(Exit::Failed, "the peer ended before the image was there"))
}

/// What people see.
enum Shown {
    Nothing,
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
    /// The last state that was told of each layer.
    Lines(BTreeMap<String, String>),
}

impl Shown {
    fn new(quiet: bool) -> Self {
        match io::stderr().is_terminal() {
            _ if quiet => Shown::Nothing,
            true => Shown::Bars(MultiProgress::new(), BTreeMap::new()),
            false => Shown::Lines(BTreeMap::new()),
        }
    }

    fn layer(&mut self, layer: &LayerRow) {
        match self {
            Shown::Nothing => {}
            Shown::Bars(all, bars) => {
                let bar = bars.entry(layer.digest.clone()).or_insert_with(|| {
                    let bar = ProgressBar::new(layer.bytes_total).with_style(style()).with_prefix(short(&layer.digest));
                    all.add(bar)
                });
                bar.set_message(layer.state.clone());
                bar.set_position(layer.bytes);
            }
            Shown::Lines(told) => {
                if told.get(&layer.digest) != Some(&layer.state) {
                    told.insert(layer.digest.clone(), layer.state.clone());
                    say(format!("{}: {} ({})", short(&layer.digest), layer.state, human::bytes(layer.bytes_total)));
                }
            }
        }
    }

    fn clear(&mut self) {
        if let Shown::Bars(all, _) = self {
            let _ = all.clear();
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} {bar:30} {binary_bytes:>11} of {binary_total_bytes:<11} {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
