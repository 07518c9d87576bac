//! Which standing links bring every frame, and which only say what there is.
//!
//! Frames are pushed at once over *eager* links; over *lazy* ones only their numbers go, gathered, and
//! whoever sees by these that it lacks something asks for it and makes the link eager again. Links
//! begin eager. A peer counts what each link brings; when one has brought mostly what was known, both
//! ends make it lazy. Of the graph of all links there remains little more than a tree, rooted
//! everywhere. (Plumtree: Leitão, Pereira and Rodrigues, *Epidemic Broadcast Trees*, 2007. There one
//! duplicate prunes a link; here a share of many does, and never the last two, so that peers that
//! prune at the same time do not fall apart, and one lost message is no news missed.)

use std::collections::BTreeMap;

use crate::ids::PeerId;

/// Links are judged when they have brought so many frames in all,
const JUDGED: u32 = 64;
/// and so long after the last one was made lazy or eager, ms: what that changes has to show first.
const QUIET_MS: u64 = 1_000;
/// A link that was lacked is not made lazy again for so long, ms.
const GRAFTED_MS: u64 = 10_000;
/// One that has brought fewer than this is not judged.
const ITEMS_MIN: u32 = 6;
/// As many eager links are kept whatever they bring.
const EAGER_MIN: usize = 2;

/// The standing links.
#[derive(Debug, Default)]
pub(super) struct Tree {
    links: BTreeMap<PeerId, Link>,
    items: u32,
    /// When links are judged next at the earliest.
    quiet_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    lazy: bool,
    news: u32,
    again: u32,
    /// Until when it stays eager.
    kept_ms: u64,
}

impl Link {
    /// More than a third of what it brings is known.
    fn is_useless(&self) -> bool {
        self.news + self.again >= ITEMS_MIN && 3 * self.again > self.news + self.again
    }
}

impl Tree {
    pub fn up(&mut self, peer: PeerId) {
        self.links.insert(peer, Link::default());
    }

    /// The link is lost; another to be made eager, where too few are left.
    pub fn down(&mut self, now_ms: u64, peer: &PeerId) -> Option<PeerId> {
        self.links.remove(peer)?;
        if self.eager().count() >= EAGER_MIN {
            return None;
        }
        let spare = self.lazy().next()?;
        self.graft(now_ms, &spare);
        Some(spare)
    }

    /// All links, eager or lazy.
    pub fn links(&self) -> impl Iterator<Item = PeerId> {
        self.links.keys().copied()
    }

    pub fn eager(&self) -> impl Iterator<Item = PeerId> {
        self.links.iter().filter(|(_, link)| !link.lazy).map(|(peer, _)| *peer)
    }

    pub fn lazy(&self) -> impl Iterator<Item = PeerId> {
        self.links.iter().filter(|(_, link)| link.lazy).map(|(peer, _)| *peer)
    }

    /// The other end wants everything over this link.
    pub fn graft(&mut self, now_ms: u64, peer: &PeerId) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link { kept_ms: now_ms + GRAFTED_MS, ..Link::default() };
            self.quiet_ms = now_ms + QUIET_MS;
        }
    }

    /// The other end wants only numbers over this link; `false` where too few would be left.
    pub fn pruned(&mut self, now_ms: u64, peer: &PeerId) -> bool {
        let is_spare = self.eager().filter(|other| other != peer).count() >= EAGER_MIN;
        if is_spare {
            self.prune(now_ms, peer);
        }
        is_spare
    }

    fn prune(&mut self, now_ms: u64, peer: &PeerId) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link { lazy: true, ..Link::default() };
            self.quiet_ms = now_ms + QUIET_MS;
        }
    }

    /// A link has brought a frame, news or known: the link that is to be pruned now, for it has brought the
    /// least.
    pub fn brought(&mut self, now_ms: u64, peer: &PeerId, is_news: bool) -> Option<PeerId> {
        let link = self.links.get_mut(peer)?;
        let count = if is_news { &mut link.news } else { &mut link.again };
        *count = count.saturating_add(1);
        self.items = self.items.saturating_add(1);
        if self.items < JUDGED || now_ms < self.quiet_ms {
            return None;
        }
        self.items = 0;
        // One that pushes though it is lazy here has missed the word.
        let is_spare = self.eager().count() > EAGER_MIN;
        let able = |link: &Link| link.lazy || is_spare && link.kept_ms <= now_ms;
        let judged = self.links.iter().filter(|(_, link)| link.is_useless() && able(link));
        let worst = judged.max_by_key(|(_, link)| link.again * 1000 / (link.news + link.again)).map(|(peer, _)| *peer);
        for link in self.links.values_mut() {
            (link.news, link.again) = (0, 0);
        }
        if let Some(peer) = &worst {
            self.prune(now_ms, peer);
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn tree(links: u8) -> Tree {
        let mut tree = Tree::default();
        (1..=links).for_each(|n| tree.up(peer(n)));
        tree
    }

    #[test]
    fn links_that_bring_only_what_is_known_turn_lazy_one_by_one_but_for_two() {
        let mut tree = tree(6);
        let mut pruned = Vec::new();
        for round in 0..1_000 {
            // The first link is always first, the others always late.
            let eager: Vec<PeerId> = tree.eager().collect();
            for link in eager {
                let first = link == peer(1);
                pruned.extend(tree.brought(round * 10, &link, first));
            }
        }
        assert_eq!(pruned.len(), 4);
        assert!(!pruned.contains(&peer(1)) && tree.eager().count() == 2 && tree.lazy().count() == 4);
    }

    #[test]
    fn a_link_that_often_brings_news_stays() {
        let mut tree = tree(3);
        for n in 0..600u32 {
            let by = peer(1 + (n % 3) as u8);
            assert_eq!(tree.brought(u64::from(n) * 10, &by, n % 4 > 0), None);
        }
    }

    #[test]
    fn a_lost_link_is_made_up_for() {
        let mut tree = tree(4);
        tree.prune(0, &peer(1));
        tree.prune(0, &peer(2));
        assert_eq!(tree.down(0, &peer(3)), Some(peer(1)));
        assert_eq!(tree.down(0, &peer(3)), None);
        assert_eq!(tree.down(0, &peer(2)), None);
        assert!(!tree.pruned(0, &peer(1)), "neither of the last two");
        assert_eq!(tree.eager().collect::<Vec<_>>(), [peer(1), peer(4)]);
    }
}
