//! What lies beside the app file and goes into the cluster's keeping: secrets, which are no part of the app.

use std::path::Path;

use rialto_client::Client;
use rialto_protocol::compose::ToSet;
use rialto_protocol::model::volume::Content;

use crate::commands::secret;
use crate::exit::{Exit, Failure};
use crate::output::say;

/// Secrets that are to be set before an app is deployed: their names in the cluster, and what they say.
pub type Secrets = Vec<(String, Vec<u8>)>;

/// Reads the secrets that the file says where to find.
pub fn secrets(to_set: &ToSet, app: &str) -> Result<Secrets, Failure> {
    to_set.iter().map(|(name, content)| Ok((name.of(app), source(content)?))).collect()
}

/// Sets them; tasks that run keep what they were started with.
pub async fn set(client: &Client, secrets: Secrets) -> Result<(), Failure> {
    for (name, bytes) in secrets {
        if client.set_secret(&name, &bytes).await?.data.changed {
            say(format!("secret {name} is set"));
        }
    }
    Ok(())
}

fn source(content: &Content) -> Result<Vec<u8>, Failure> {
    match content {
        Content::File(name) => secret::read(Path::new(name)),
        Content::Text(text) => Ok(text.clone().into_bytes()),
        Content::Variable(name) => {
            let failure = Failure::new(Exit::Refused, format!("the variable {name} is not set here"));
            Err(failure.hint("a secret is made of it: set it in the shell, or in a file .env beside the app file"))
        }
        Content::Sealed(name) => Err(Failure::new(Exit::Refused, format!("{name:?} is sealed already"))),
    }
}
