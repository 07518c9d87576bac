//! `rialto invite`.

use rialto_client::Client;

use crate::args::Invite;
use crate::exit::Failure;
use crate::human;
use crate::output::{Output, say};

pub async fn invite(client: &Client, out: Output, invite: Invite) -> Result<(), Failure> {
    let invited = client.invite(invite.ttl, invite.uses).await?.data;
    let uses = human::count(u64::from(invited.uses), "machine");
    say(format!("good for {uses} until {}; on each: rialtod --join TOKEN", invited.expires_at));
    out.data(&invited, || invited.token.clone())
}
