//! Speaks the HTTP API of a peer, over its Unix socket or over TCP with a token.
//!
//! A [`Client`] knows one or several peers and asks the first that can be reached: any peer answers
//! for the whole cluster. A request that broke off is put to the next one, which is harmless: what
//! changes something carries a [`change id`](new_change) made here, and sending it twice changes
//! nothing twice.
//!
//! ```no_run
//! # async fn f() -> Result<(), rialto_client::Error> {
//! let client = rialto_client::Client::new(vec!["/run/rialto/rialto.sock".parse().unwrap()], None);
//! println!("{} machines are alive", client.status().await?.data.machines_alive);
//! # Ok(())
//! # }
//! ```

mod calls;
mod endpoint;
mod error;
mod lines;
mod session;
mod transport;

use rialto_protocol::ids::ChangeId;

pub use calls::{Naming, Wait};
pub use endpoint::{BadEndpoint, Endpoint};
pub use error::{Error, Tried};
pub use lines::Lines;
pub use rialto_protocol::api::RunBody;
pub use session::{Hearing, Saying};
pub use transport::Client;

/// A new name for a change. Ids that are made later sort later (UUID version 7, RFC 9562).
pub fn new_change() -> ChangeId {
    ChangeId(uuid::Uuid::now_v7().into_bytes())
}
