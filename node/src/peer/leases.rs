//! Keeps what tasks need of the lock group: a keeper for each, which asks until it has it, and goes on asking while the
//! task runs. What follows from answers is for [`Keeper`] to say; here it is only done.

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rialto_protocol::Event;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::lease::{Act, Answer, Keeper, Need};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::locks::Locks;
use crate::driver::clock;
use crate::driver::ports::Leases;
use crate::executor::deadlines::Deadlines;

/// Leases that are given up at the end of a peer have so long, until they end by themselves.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

enum Order {
    Acquire(ClaimId, Need),
    Release(ClaimId),
}

/// Where leases are asked for: made before there is a lock group.
#[derive(Clone)]
pub struct Desk {
    // Its length is bounded by the claims of this machine, as the market bounds them.
    orders: mpsc::UnboundedSender<Order>,
    keepers: TaskTracker,
}

/// What was ordered at the desk.
pub struct Orders(mpsc::UnboundedReceiver<Order>);

impl Leases for Desk {
    fn acquire(&self, claim: ClaimId, need: Need) {
        // Nobody takes orders only when everything ends.
        let _ = self.orders.send(Order::Acquire(claim, need));
    }

    fn release(&self, claim: ClaimId) {
        let _ = self.orders.send(Order::Release(claim));
    }
}

impl Desk {
    pub fn new() -> (Self, Orders) {
        let (orders, taken) = mpsc::unbounded_channel();
        (Self { orders, keepers: TaskTracker::new() }, Orders(taken))
    }

    /// Waits until what was released has been given up, where all of it was; others may have it at once then.
    pub async fn farewell(&self) {
        self.keepers.close();
        if timeout(FAREWELL_MAX, self.keepers.wait()).await.is_err() {
            tracing::debug!("some leases are left to end by themselves");
        }
    }

    /// Keeps what is ordered, until `closing`: leases live on, for the next life of this peer to keep. Without a part in
    /// the lock group nothing is had.
    pub async fn run(
        self,
        Orders(mut orders): Orders,
        locks: Option<Locks>,
        deadlines: Deadlines,
        events: mpsc::Sender<Event>,
        closing: CancellationToken,
    ) {
        let mut kept: HashMap<ClaimId, CancellationToken> = HashMap::new();
        while let Some(Some(order)) = closing.run_until_cancelled(orders.recv()).await {
            match order {
                Order::Acquire(claim, need) => {
                    let released = CancellationToken::new();
                    kept.insert(claim, released.clone());
                    let kept =
                        Kept { claim, locks: locks.clone(), deadlines: deadlines.clone(), events: events.clone() };
                    let closing = closing.clone();
                    self.keepers.spawn(async move {
                        let keeper = Keeper::new(&claim, need);
                        closing.run_until_cancelled(kept.keep(keeper, released)).await;
                    });
                }
                Order::Release(claim) => {
                    kept.remove(&claim).inspect(CancellationToken::cancel);
                }
            }
        }
    }
}

/// One task's lease.
struct Kept {
    claim: ClaimId,
    locks: Option<Locks>,
    deadlines: Deadlines,
    events: mpsc::Sender<Event>,
}

impl Kept {
    async fn keep(self, mut keeper: Keeper, released: CancellationToken) {
        let mut asking: Option<BoxFuture<'_, Result<Answer, String>>> = None;
        let mut is_released = false;
        let mut acts = keeper.turn(clock::now().ms);
        loop {
            for act in acts {
                match act {
                    Act::Ask(ask) => {
                        asking = Some(match &self.locks {
                            Some(locks) => locks.tend(ask).boxed(),
                            None => async { Err("this peer has no part in it: its log says why".into()) }.boxed(),
                        });
                    }
                    Act::Until(until_ms) => self.deadlines.set(self.claim, until_ms),
                    // The brain ends with the peer.
                    Act::Say(word) => drop(self.events.send(Event::Lease { claim: self.claim, word }).await),
                }
            }
            if keeper.is_over() {
                return;
            }
            acts = tokio::select! {
                answer = answered(&mut asking) => {
                    asking = None;
                    keeper.answered(clock::now().ms, answer)
                }
                () = clock::sleep_until(keeper.next_deadline()) => keeper.turn(clock::now().ms),
                () = released.cancelled(), if !is_released => {
                    (is_released, asking) = (true, None);
                    keeper.release(clock::now().ms)
                }
            };
        }
    }
}

async fn answered(asking: &mut Option<BoxFuture<'_, Result<Answer, String>>>) -> Result<Answer, String> {
    match asking {
        Some(asking) => asking.await,
        None => pending().await,
    }
}
