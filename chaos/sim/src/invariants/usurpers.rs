//! P4: no claim ends on the word of a peer that cannot be its app's steward, as its machine believes at that moment.

use rialto_protocol::ids::{ClaimId, PeerId};
use rialto_protocol::view::View;
use rialto_protocol::wire::Message;
use rialto_protocol::{Brain, Now};

/// A claim that a message would end without a right.
#[derive(Clone, Debug)]
pub struct Usurped {
    claim: ClaimId,
    app: String,
}

impl Usurped {
    /// What `brain` is about to be told by a hostile peer, if that is to end a claim that goes on and is not for it
    /// to end.
    pub fn by(brain: &Brain, now: Now, from: &PeerId, message: &Message) -> Option<Self> {
        let Message::Stop { claim, app, .. } = message else { return None };
        let usurped = Self { claim: *claim, app: app.name.clone() };
        let goes_on = usurped.state(brain.view(now)).is_some_and(|state| state != "stopping");
        (goes_on && !brain.may_steward(app, from)).then_some(usurped)
    }

    fn state(&self, view: View<'_>) -> Option<String> {
        let claims = view.claims(&self.app).into_iter();
        claims.filter(|one| one.claim == self.claim).map(|one| one.row.state).next()
    }

    /// Judges what came of it.
    pub fn judge(&self, machine: usize, brain: &Brain, now: Now) -> Result<(), String> {
        match self.state(brain.view(now)) {
            Some(state) if state == "stopping" => {
                Err(format!("m{machine} ends a claim of {} because a peer says so that is not its steward", self.app))
            }
            _ => Ok(()),
        }
    }
}
