//! `rialto secret`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use rialto_client::Client;
use rialto_protocol::api::SecretRow;
use rialto_protocol::model::volume::SECRET_BYTES_MAX;

use crate::args::Secret;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::table;

pub async fn secret(client: &Client, out: Output, secret: Secret) -> Result<(), Failure> {
    match secret {
        Secret::Set { name, file } => {
            let set = client.set_secret(&name, &read(&file)?).await?.data;
            say(match set.changed {
                true => format!("secret {name} is set"),
                false => format!("secret {name} said so already"),
            });
            out.data(&set, String::new)
        }
        Secret::Ls => {
            let secrets = client.secrets().await?.data.secrets;
            if secrets.is_empty() {
                say("no secrets yet; 'rialto secret set NAME' sets one");
            }
            out.data(&secrets, || rows(&secrets))
        }
        Secret::Rm { names } => {
            let mut removed = Vec::new();
            for name in names {
                removed.push(client.remove_secret(&name).await?.data);
                say(format!("secret {name} is removed"));
            }
            out.data(&removed, String::new)
        }
    }
}

/// What a file or stdin holds; '-' is stdin.
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let shown = if file == Path::new("-") { "stdin".into() } else { file.display().to_string() };
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{shown}: there is no such file")),
        _ => Failure::new(Exit::Failed, format!("{shown}: {error}")),
    };
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are more.
    let most = SECRET_BYTES_MAX as u64 + 1;
    match file == Path::new("-") {
        true if io::stdin().is_terminal() => {
            let failure = Failure::usage("the secret is read from stdin, which is a terminal here");
            return Err(failure.hint("name a file, or pipe it in"));
        }
        true => io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(wrong)?,
        false => File::open(file).map_err(wrong)?.take(most).read_to_end(&mut bytes).map_err(wrong)?,
    };
    match bytes.len() {
        0 => Err(Failure::new(Exit::Refused, format!("{shown}: it is empty"))),
        length if length > SECRET_BYTES_MAX => {
            Err(Failure::new(Exit::Refused, format!("{shown}: a secret has at most {SECRET_BYTES_MAX} bytes")))
        }
        _ => Ok(bytes),
    }
}

fn rows(secrets: &[SecretRow]) -> String {
    if secrets.is_empty() {
        return String::new();
    }
    let cells = |row: &SecretRow| vec![row.name.clone(), row.set_at.clone(), row.services.join(", ")];
    table::table(&["NAME", "SET", "SERVICES"], &[], &secrets.iter().map(cells).collect::<Vec<_>>())
}
