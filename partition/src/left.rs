//! The groups that this partition has left by an adoption, and how far it had seen them: what is older than that is not
//! adopted again (HA 2.7).
use prost::Message;

use crate::contents::Contents;

/// Groups remembered at most: each is an operator's word, so that the first to be forgotten is of long ago.
const GROUPS_MAX: usize = 1_024;

/// One group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Left {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(crate) manifest_epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) credential_epoch: u64,
}

impl Left {
    /// The group that the partition is in, as one that it leaves now.
    pub(crate) fn of(contents: &Contents) -> Left {
        Left {
            group: contents.group().id.to_vec(),
            manifest_epoch: contents.manifest.epoch,
            credential_epoch: contents.credentials.epoch,
        }
    }
}

/// All of them, the last one left at the end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LeftGroups {
    #[prost(message, repeated, tag = "1")]
    groups: Vec<Left>,
}

impl LeftGroups {
    /// How far a group had been seen; none when it was never left.
    pub(crate) fn get(&self, group: &[u8]) -> Option<&Left> {
        self.groups.iter().find(|left| left.group == group)
    }

    /// With one more, in the place of what was known of that group.
    pub(crate) fn with(&self, left: Left) -> LeftGroups {
        let mut groups = self.groups.clone();
        groups.retain(|other| other.group != left.group);
        if groups.len() == GROUPS_MAX {
            groups.remove(0);
        }
        groups.push(left);
        LeftGroups { groups }
    }

    /// As it lies in the store.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// From the store; none for bytes that are no such list.
    pub(crate) fn read(bytes: &[u8]) -> Option<LeftGroups> {
        LeftGroups::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(number: u64, epoch: u64) -> Left {
        Left { group: number.to_be_bytes().to_vec(), manifest_epoch: epoch, credential_epoch: epoch + 1 }
    }

    #[test]
    fn each_group_is_remembered_once_and_the_oldest_gives_way() {
        let mut groups = LeftGroups::default();
        for number in 0..1_024 {
            groups = groups.with(left(number, 1));
        }
        groups = groups.with(left(0, 5));
        let kept = LeftGroups::read(&groups.encode());
        assert_eq!(kept.as_ref().and_then(|kept| kept.get(&0_u64.to_be_bytes())), Some(&left(0, 5)));
        groups = groups.with(left(9_999, 1));
        assert_eq!(groups.groups.len(), GROUPS_MAX);
        assert_eq!(groups.get(&1_u64.to_be_bytes()), None, "the first that was left and never again");
        assert!(groups.get(&0_u64.to_be_bytes()).is_some());
    }
}
