//! Tests of the typed configuration: what a file decides, and the texts of its faults.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::*;

fn of(text: &str) -> Result<Configuration, Error> {
    Configuration::from_bytes(text.as_bytes(), Path::new("/conf/Chrystoki.conf"))
}

fn fault(text: &str) -> String {
    of(text).unwrap_err().to_string()
}

fn warnings(text: &str) -> Vec<String> {
    of(text).unwrap().warnings.iter().map(Warning::to_string).collect()
}

/// The smallest HA file in the wild has these keys only.
const SMALLEST: &str = "
Chrystoki2 = {
  LibUNIX64 = /usr/lib/x.so;
}
LunaSA Client = {
\tNetClient = 1;
\tClientCertFile         = cert/client/a.pem;
\tClientPrivKeyFile      = /etc/my keys/aKey.pem;
\tServerCAFile = cert/server/CAFile.pem;
\tServerName00 = hsm-a;
\tServerPort00 = 1792;
\tServerName01 = hsm-b;
}
VirtualToken = {
  VirtualToken00Label = prodha;
  VirtualToken00SN = 11000000000001;
  VirtualToken00Members = 1000000000001,1000000000002;
}
HAConfiguration = { HAOnly = 1; }
";

#[test]
fn the_smallest_file_gets_every_default() {
    let configuration = of(SMALLEST).unwrap();
    assert_eq!(configuration.warnings, []);
    let server = |index, name: &str| Server { index, name: name.to_owned(), port: 1792 };
    assert_eq!(configuration.servers, [server(0, "hsm-a"), server(1, "hsm-b")]);
    assert_eq!(configuration.client_certificate, Some(PathBuf::from("/conf/cert/client/a.pem")));
    assert_eq!(configuration.client_private_key, Some(PathBuf::from("/etc/my keys/aKey.pem")));
    assert_eq!(configuration.server_ca, Path::new("/conf/cert/server/CAFile.pem"));
    assert_eq!(configuration.receive_timeout_ms, 20_000);
    assert!(configuration.tcp_keep_alive && configuration.net_client && configuration.ha_only);
    let group = configuration.group("PRODHA").unwrap();
    assert_eq!(group.serial, Serial(11_000_000_000_001));
    assert_eq!(group.members, [Serial(1_000_000_000_001), Serial(1_000_000_000_002)]);
    assert!(group.synchronize && group.standby.is_empty());
    assert_eq!(configuration.recovery.attempts, Attempts::Unlimited);
    assert_eq!(configuration.hatoki.minimum_copies, Copies::Number(2));
    assert_eq!(configuration.hatoki.log_level, LogLevel::Warn);
    assert_eq!(configuration.hatoki.log_path, None);
}

#[test]
fn ha_only_is_on_by_default_with_a_group_and_off_without() {
    assert!(!of("").unwrap().ha_only);
    let group = "VirtualToken = { VirtualToken00Label = g; VirtualToken00Members = 5; }";
    assert!(of(group).unwrap().ha_only);
    assert!(!of(&format!("{group} HAConfiguration = {{ HAOnly = 0; }}")).unwrap().ha_only);
}

#[test]
fn repeated_sections_are_merged_and_the_last_key_wins_without_regard_to_case() {
    let text =
        "Luna = { DefaultTimeOut = 1000; KeypairGenTimeOut = 3000; }\nLUNA = { defaulttimeout = 2000; }";
    let configuration = of(text).unwrap();
    assert_eq!((configuration.default_timeout_ms, configuration.keypair_timeout_ms), (2000, 3000));
}

#[test]
fn an_empty_value_means_the_default() {
    let configuration =
        of("LunaSA Client = { ReceiveTimeout = ; ServerName00 = a; ServerPort00 =; }").unwrap();
    assert_eq!((configuration.receive_timeout_ms, configuration.servers[0].port), (20_000, 1792));
}

#[test]
fn comments_and_trailing_comments_are_no_values() {
    let text = "# DefaultTimeOut = 7;\nLuna = {\n # x\n DefaultTimeOut = 700; // ms, see above; really\n}\n";
    assert_eq!(of(text).unwrap().default_timeout_ms, 700);
}

#[test]
fn unknown_names_are_warned_about_once_each_with_file_and_line() {
    let text =
        "Lunar = { a = 1; b = 2; }\nLuna = {\n  Colour = red;\n  colour = blue;\n}\nLUNAR = { c = 1; }\n";
    let expected = [
        "/conf/Chrystoki.conf:1: unknown section Lunar, ignored",
        "/conf/Chrystoki.conf:4: unknown key colour in section Luna, ignored",
    ];
    assert_eq!(warnings(text), expected);
}

#[test]
fn keys_of_the_vendor_that_are_not_used_are_not_warned_about() {
    let text = "Misc = { PE1746Enabled = 0; ToolsDir = /x; }\nGemEngine = { LibPath = /y; Anything = 1; }\n\
                Luna = { PEDTimeout1 = 1; CommandTimeoutPedSet = 7; }\nLunaSA Client = { ServerHtl00 = ; }";
    assert_eq!(warnings(text), Vec::<String>::new());
}

#[test]
fn a_wrong_tuning_value_of_the_vendor_warns_and_gives_the_default() {
    let text = "HAConfiguration = {\n  reconnAtt = often;\n}\n";
    assert_eq!(of(text).unwrap().recovery.attempts, Attempts::Unlimited);
    let expected = "/conf/Chrystoki.conf:2: wanted a number from -1 to 500 for reconnAtt, found `often`; \
                    the default -1 is used, correct the value";
    assert_eq!(warnings(text), [expected]);
}

#[test]
fn reconnection_attempts_are_none_a_number_or_unlimited() {
    let attempts =
        |n: &str| of(&format!("HAConfiguration = {{ reconnAtt = {n}; }}")).unwrap().recovery.attempts;
    assert_eq!(attempts("0"), Attempts::None);
    assert_eq!(attempts("120"), Attempts::Number(120));
    assert_eq!(attempts("-1"), Attempts::Unlimited);
}

#[test]
fn our_own_section_is_read_and_its_wrong_values_are_refused() {
    let text = "Hatoki = { MinimumCopies = Majority; OutageWaitMs = 0; LinksPerMember = 4; Policy = ROUND-robin;\n\
                BufferMiB = 64; LocalVerify = 0; LocalRandom = Off; LogLevel = Debug; LogPath = log/h.log;\n\
                StatsPath = run; }";
    let expected = Hatoki {
        minimum_copies: Copies::Majority,
        outage_wait_ms: 0,
        links_per_member: 4,
        policy: Policy::RoundRobin,
        buffer_mib: 64,
        local_verify: false,
        local_random: false,
        log_level: LogLevel::Debug,
        log_path: Some(PathBuf::from("/conf/log/h.log")),
        stats: Stats::Folder(PathBuf::from("/conf/run")),
    };
    assert_eq!(of("Hatoki = { StatsPath = OFF; }").unwrap().hatoki.stats, Stats::Off);
    assert_eq!(of("").unwrap().hatoki.stats, Stats::Default);
    assert_eq!(of(text).unwrap().hatoki, expected);
    for (key, value) in [
        ("MinimumCopies", "0"),
        ("MinimumCopies", "most"),
        ("OutageWaitMs", "-1"),
        ("LinksPerMember", "5"),
        ("Policy", "best"),
        ("BufferMiB", "1"),
        ("LocalVerify", "yes"),
        ("LogLevel", "loud"),
    ] {
        let text = fault(&format!("Hatoki = {{\n   {key} = {value};\n}}"));
        let place = format!("/conf/Chrystoki.conf:2:{}: wanted ", 7 + key.len());
        assert!(text.starts_with(&place) && text.contains(&format!("found `{value}`")), "{text}");
    }
}

#[test]
fn a_wrong_port_is_refused_with_its_place() {
    let text = fault("LunaSA Client = {\n   ServerName00 = a;\n   ServerPort00 = 70000;\n}\n");
    let expected = "/conf/Chrystoki.conf:3:19: wanted a number from 1 to 65535 for ServerPort00, found `70000`; \
                    correct ServerPort00 in section LunaSA Client";
    assert_eq!(text, expected);
}

#[test]
fn a_port_without_a_server_is_warned_about() {
    let expected =
        "/conf/Chrystoki.conf:1: ServerPort03 without ServerName03, ignored; name the server or remove it";
    assert_eq!(warnings("LunaSA Client = { ServerPort03 = 1; }"), [expected]);
}

#[test]
fn a_group_without_a_serial_gets_the_digit_one_before_its_first_member() {
    let group =
        of("VirtualToken = { VirtualToken00Label = g; VirtualToken00Members = 156908040, 7; }").unwrap();
    assert_eq!(group.groups[0].serial, Serial(1_156_908_040));
}

#[test]
fn groups_that_contradict_themselves_are_refused() {
    let virtual_token = |body: &str| fault(&format!("VirtualToken = {{ {body} }}"));
    for (body, part) in [
        ("VirtualToken00Label = g;", "wanted a VirtualToken00Members beside the label"),
        ("VirtualToken00Members = 1;", "wanted a VirtualToken00Label beside VirtualToken00Members"),
        ("VirtualToken00Label = g; VirtualToken00Members = 1, 1;", "each once"),
        ("VirtualToken00Label = g; VirtualToken00Members = 1, x;", "decimal serial numbers"),
        (
            "VirtualToken00Label = g; VirtualToken00Members = 99999999999999999999999;",
            "decimal serial numbers",
        ),
        (
            "VirtualToken00Label = 123456789012345678901234567890123; VirtualToken00Members = 1;",
            "at most 32 bytes",
        ),
        (
            "VirtualToken00Label = g; VirtualToken00Members = 1; VirtualToken01Label = G; VirtualToken01Members = 2;",
            "a label that no other group has",
        ),
        (
            "VirtualToken00Label = g; VirtualToken00Members = 1; VirtualToken00SN = 9;\
             VirtualToken01Label = h; VirtualToken01Members = 2; VirtualToken01SN = 9;",
            "a group serial that no other group has",
        ),
    ] {
        let text = virtual_token(body);
        assert!(text.contains(part), "{body}: {text}");
    }
}

#[test]
fn synchronisation_and_standby_are_named_by_the_groups_label() {
    let text = "VirtualToken = { VirtualToken00Label = my ha; VirtualToken00Members = 1, 2; }\n\
                HASynchronize = { MY HA = 0; }\nHARecovery = { my ha = 1; }\n\
                HAConfiguration = { my haStandbyMembers = 2; }";
    let configuration = of(text).unwrap();
    assert_eq!(configuration.warnings, []);
    assert!(!configuration.groups[0].synchronize);
    assert_eq!(configuration.groups[0].standby, [Serial(2)]);
    let text = text.replace("StandbyMembers = 2", "StandbyMembers = 3");
    assert!(fault(&text).contains("wanted serials out of VirtualToken00Members, found `3`"));
}

#[test]
fn a_label_of_no_group_is_an_unknown_key() {
    let expected = "/conf/Chrystoki.conf:1: unknown key gone in section HASynchronize, ignored";
    assert_eq!(warnings("HASynchronize = { gone = 1; }"), [expected]);
}

#[test]
fn malformed_text_is_refused_with_line_column_wanted_found_and_what_to_do() {
    for (text, message) in [
        ("Luna {\n}", "1:6: wanted `=` after the section name, found `{`; begin the section with `Name = {`"),
        (
            "a = 1;",
            "1:5: wanted `{` to open the section, found `1`; write entries inside a section: `Section = { a = …; }`",
        ),
        ("\n}", "2:1: wanted a section, found `}` outside of a section; remove it"),
        (
            "[Luna]",
            "1:1: wanted a section `Name = {`, found `[`; this is the form of crystoki.ini; write the section as `Name = { key = value; }`",
        ),
        (
            "A = {\n b = 1;\n",
            "3:1: wanted `}` to close the section `A` opened in line 1, found the end of the file; add the `}`",
        ),
        (
            "A = {\n b = {",
            "2:6: wanted a value for `b`, found `{`; close `A` with `}` first; sections do not nest",
        ),
        (
            "A = {\n b = 1\n}",
            "2:7: wanted `;`, found the end of the line; end the value of `b` with `;` on its own line",
        ),
        ("A = {\n b;\n}", "2:3: wanted `=` after the key, found `;`; write the entry as `key = value;`"),
        (
            "A = {\n = 1;\n}",
            "2:2: wanted a key of 1 to 256 bytes, found `=`; write the entry as `key = value;`",
        ),
        ("A = { b = \u{1b}[0m; }", "1:11: wanted printable text, found the character U+001B; remove it"),
    ] {
        assert_eq!(fault(text), format!("/conf/Chrystoki.conf:{message}"), "{text:?}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_at_its_place() {
    let error = Configuration::from_bytes(b"# caf\xE9\n", Path::new("c")).unwrap_err().to_string();
    assert_eq!(error, "c:1:6: wanted UTF-8 text, found byte 0xE9; save the file as UTF-8");
}

#[test]
fn size_and_counts_are_bounded() {
    let huge = vec![b'#'; (1 << 20) + 1];
    let error = Configuration::from_bytes(&huge, Path::new("c")).unwrap_err().to_string();
    assert_eq!(
        error,
        "c:1:1: wanted a file of at most 1048576 bytes, found 1048577 bytes; remove what is no configuration"
    );
    assert!(fault(&"A={}\n".repeat(1025)).contains("wanted at most 1024 sections in a file"));
    let entries = format!("A = {{\n{}}}", "b=1;\n".repeat(16_385));
    assert!(fault(&entries).contains("16386:1: wanted at most 16384 entries in a file"));
    assert!(
        fault(&format!("{} = {{}}", "x".repeat(257))).contains("wanted a section name of 1 to 256 bytes")
    );
    assert!(fault(&format!("A = {{ b = {}; }}", "x".repeat(16_385))).contains("wanted at most 16384 bytes"));
}

#[test]
fn rules_2_12_the_first_slot_is_0_or_1_and_a_slot_that_is_pinned_gets_a_warning_that_says_what_to_do() {
    assert_eq!(of("").unwrap().first_slot, 0);
    assert_eq!(of("Presentation = { OneBaseSlotId = 1; }").unwrap().first_slot, 1);
    let text =
        "Presentation = {\n OneBaseSlotId = 2;\n ShowUserSlots = 1(1000000000001);\n ShowEmptySlots = 1;\n}";
    let warnings = warnings(text);
    assert!(warnings[0].contains(":2: wanted 0 or 1 for OneBaseSlotId"), "{warnings:?}");
    assert!(
        warnings[1].contains(":3: ShowUserSlots in section Presentation changes nothing here"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("`vtl listSlots`"), "{warnings:?}");
    assert_eq!(warnings.len(), 2);
    assert!(of("Presentation = { ShowUserSlots = ; }").unwrap().warnings.is_empty());
}
