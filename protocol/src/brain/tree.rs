//! Which standing links bring everything, and which only say what there is.
//!
//! News are pushed at once over *eager* links; over *lazy* ones only their numbers go, gathered, and
//! whoever sees by these that it lacks something asks for it and makes the link eager again. Links
//! begin eager. A peer counts what each link brings; when one has brought mostly what was known, both
//! ends make it lazy. Of the graph of all links there remains little more than a tree, rooted
//! everywhere. (Plumtree: Leitão, Pereira and Rodrigues, *Epidemic Broadcast Trees*, 2007. There one
//! duplicate prunes a link; here a share of many does, and never the last two, so that peers that
//! prune at the same time do not fall apart, and one lost message is no news missed.)

use std::collections::BTreeMap;

use crate::ids::PeerId;

/// Links are judged each time they have brought so many items in all.
const JUDGED: u32 = 64;
/// One that has brought fewer than this is not judged.
const ITEMS_MIN: u32 = 6;
/// As many eager links are kept whatever they bring.
const EAGER_MIN: usize = 2;

/// The standing links.
#[derive(Debug, Default)]
pub(super) struct Tree {
    links: BTreeMap<PeerId, Link>,
    items: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    lazy: bool,
    news: u32,
    again: u32,
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
    pub fn down(&mut self, peer: &PeerId) -> Option<PeerId> {
        self.links.remove(peer)?;
        if self.eager().count() >= EAGER_MIN {
            return None;
        }
        let spare = self.lazy().next()?;
        self.graft(&spare);
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
    pub fn graft(&mut self, peer: &PeerId) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link::default();
        }
    }

    /// The other end wants only numbers over this link.
    pub fn prune(&mut self, peer: &PeerId) {
        if let Some(link) = self.links.get_mut(peer) {
            *link = Link { lazy: true, ..Link::default() };
        }
    }

    /// A link has brought so much that was news, and so much that was known: the link that is to be
    /// pruned now, for it has brought the least.
    pub fn brought(&mut self, peer: &PeerId, news: u32, again: u32) -> Option<PeerId> {
        let link = self.links.get_mut(peer)?;
        link.news = link.news.saturating_add(news);
        link.again = link.again.saturating_add(again);
        self.items = self.items.saturating_add(news + again);
        if self.items < JUDGED {
            return None;
        }
        self.items = 0;
        // One that pushes though it is lazy here has missed the word.
        let is_spare = self.eager().count() > EAGER_MIN;
        let judged = self.links.iter().filter(|(_, link)| link.is_useless() && (is_spare || link.lazy));
        let worst = judged.max_by_key(|(_, link)| link.again * 1000 / (link.news + link.again)).map(|(peer, _)| *peer);
        for link in self.links.values_mut() {
            (link.news, link.again) = (0, 0);
        }
        if let Some(peer) = &worst {
            self.prune(peer);
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
        for _ in 0..200 {
            // The first link is always first, the others always late.
            let eager: Vec<PeerId> = tree.eager().collect();
            for link in eager {
                let first = link == peer(1);
                pruned.extend(tree.brought(&link, u32::from(first), u32::from(!first)));
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
            assert_eq!(tree.brought(&by, u32::from(n % 4 > 0), u32::from(n % 4 == 0)), None);
        }
    }

    #[test]
    fn a_lost_link_is_made_up_for() {
        let mut tree = tree(4);
        tree.prune(&peer(1));
        tree.prune(&peer(2));
        assert_eq!(tree.down(&peer(3)), Some(peer(1)));
        assert_eq!(tree.down(&peer(3)), None);
        assert_eq!(tree.down(&peer(2)), None);
        assert_eq!(tree.eager().collect::<Vec<_>>(), [peer(1), peer(4)]);
    }
}
