//! `haAdmin deleteGroup`: a group leaves this host's configuration. The partitions keep their keys and their manifest, so
//! that other hosts go on and `newGroup` names the group here again.

use client::conf::document::indexed_key;
use client::conf::options::{GROUP_LABEL, GROUP_MEMBERS, GROUP_SERIAL, STANDBY_MEMBERS, SYNCHRONIZE};
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::arguments::DeleteGroup;
use crate::place::{self, Place};

/// Removes everything that names the group.
pub(crate) fn run(place: &Place, delete: &DeleteGroup) -> Result<Answer, Failure> {
    let configuration = place.configuration()?;
    let group = place::group(&configuration, &delete.group)?.clone();
    let after = place.change(|_, document| {
        for row in [&GROUP_LABEL, &GROUP_SERIAL, &GROUP_MEMBERS] {
            document.remove(row.section, &indexed_key(row.key, group.index));
        }
        document.remove(SYNCHRONIZE.section, &group.label);
        document.remove("HARecovery", &group.label);
        document.remove(STANDBY_MEMBERS.section, &STANDBY_MEMBERS.key.replace("<label>", &group.label));
        Ok(())
    })?;
    let moved = configuration.groups.iter().skip_while(|other| other.index != group.index).count() > 1;
    let text = format!(
        "HA group {} with serial {} is removed from the configuration; its partitions and their keys stay as they are.\n",
        group.label, group.serial
    );
    let document =
        json!({ "label": group.label, "serial": group.serial.0, "groups_left": after.groups.len() });
    let mut answer = Answer::new(text, document);
    if moved {
        answer
            .complaints
            .push("the groups behind it have other slot numbers now; see vtl listSlots".to_owned());
    }
    Ok(answer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn everything_that_names_the_group_goes_and_the_others_stay() {
        let folder = Folder::new(1);
        folder.append(
            "VirtualToken = {\n   VirtualToken00Label = a;\n   VirtualToken00SN = 15;\n   VirtualToken00Members = 5, 6;\n   \
             VirtualToken01Label = b;\n   VirtualToken01Members = 7;\n}\nHASynchronize = {\n   a = 1;\n   b = 0;\n}\n\
             HAConfiguration = {\n   aStandbyMembers = 6;\n   HAOnly = 1;\n}\n",
        );
        let delete = |group: &str| run(&folder.place(), &DeleteGroup { group: group.to_owned() });
        let answer = delete("15").unwrap();
        assert!(answer.complaints[0].contains("other slot numbers"), "{answer:?}");
        let groups = folder.configuration().groups;
        assert_eq!((groups.len(), groups[0].label.as_str(), groups[0].synchronize), (1, "b", false));
        for gone in ["VirtualToken00", "   a = ", "aStandbyMembers"] {
            assert!(!folder.text().contains(gone), "{gone} in {}", folder.text());
        }
        assert!(delete("a").unwrap_err().0.contains("found the groups b"));
        assert!(delete("b").unwrap().complaints.is_empty());
        assert!(folder.configuration().groups.is_empty());
    }
}
