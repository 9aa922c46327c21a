#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use super::*;

/// Compares with a file in `snapshots/`, named after the test.
macro_rules! golden {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($text) })
    };
}

/// Loads `text` as the file `quorate.toml`, with `variables` over it.
fn load_text(text: &[u8], variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quorate.toml");
    fs::write(&path, text).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let loaded = environment(variables).and_then(|overrides| {
        load(&Layers {
            file: Some(path.clone()),
            overrides,
        })
    });
    // Nothing but the configuration was looked at.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let shown = format!("{}/", directory.path().display());
    loaded.map_err(|error| error.to_string().replace(&shown, ""))
}

/// A title, a file, and variables with their values.
type Refused<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// The error of each configuration, as users see it.
fn refusals(configurations: &[Refused<'_>]) -> String {
    let mut shown = String::new();
    for (title, text, variables) in configurations {
        let error = load_text(text.as_bytes(), variables).expect_err(title);
        writeln!(shown, "## {title}\n{error}\n").unwrap();
    }
    shown
}

#[test]
fn default_file_documents_every_key_with_its_default() {
    assert_eq!(
        toml::from_str::<Config>(DEFAULT_TOML).unwrap(),
        Config::default()
    );
    let loaded = load_text(DEFAULT_TOML.as_bytes(), &[]).unwrap();
    for setting in loaded.settings() {
        let key = setting.key.rsplit('.').next().unwrap();
        let line = format!("\n{key} = ");
        assert!(
            DEFAULT_TOML.contains(&line),
            "{} is not in default.toml",
            setting.key
        );
        assert!(matches!(setting.origin, Origin::File(_)), "{setting:?}");
    }
    for optional in ["name", "advertise-client", "advertise-admin"] {
        assert!(
            DEFAULT_TOML.contains(&format!("\n# {optional} = ")),
            "{optional}"
        );
    }
}

#[test]
fn documentation_shows_the_default_file() {
    let documentation = include_str!("../../../docs/configuration.md");
    assert!(documentation.contains(&format!("```toml\n{DEFAULT_TOML}```\n")));
}

#[test]
fn written_configuration_reads_the_same() {
    let config = Config::default();
    assert_eq!(
        toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(),
        config
    );
}

#[test]
fn empty_file_has_the_defaults() {
    assert_eq!(load_text(b"", &[]).unwrap().config, Config::default());
}

// FAULTS 100, part by part.
#[test]
fn malformed_files_are_refused_with_line_and_caret() {
    golden!(refusals(&[
        (
            "unknown key",
            "[raft]\nheartbeat-intervall = \"50ms\"\n",
            &[]
        ),
        ("unknown table", "[rafts]\n", &[]),
        ("wrong type", "[node]\nid = \"one\"\n", &[]),
        ("boolean as text", "[listen]\ninsecure = \"yes\"\n", &[]),
        ("negative id", "[node]\nid = -1\n", &[]),
        (
            "negative timeout",
            "[genesis]\nsession-timeout = \"-5s\"\n",
            &[]
        ),
        (
            "duration without unit",
            "[raft]\nheartbeat-interval = 200\n",
            &[]
        ),
        ("size without unit", "[raft]\nlog-keep = \"256\"\n", &[]),
        ("size as number", "[genesis]\ncommand-max = 1048576\n", &[]),
        ("no range", "[raft]\nelection-timeout = \"1s\"\n", &[]),
        ("no scheme", "[listen]\nclient = \"127.0.0.1:7400\"\n", &[]),
        (
            "port out of range",
            "[listen]\nadmin = \"127.0.0.1:70000\"\n",
            &[]
        ),
        ("unknown module", "[genesis]\nmodule = \"kvv\"\n", &[]),
        (
            "duplicate node id",
            "[cluster.peers]\n1 = \"tcp://a:1\"\n1 = \"tcp://b:1\"\n",
            &[]
        ),
        (
            "same id written twice",
            "[cluster.peers]\n1 = \"tcp://a:1\"\n01 = \"tcp://b:1\"\n",
            &[]
        ),
        (
            "peer without port",
            "[cluster.peers]\n1 = \"tcp://node-1\"\n",
            &[]
        ),
        ("table twice", "[node]\nid = 1\n[node]\n", &[]),
        ("not TOML", "[node\n", &[]),
        (
            "tab and umlaut before",
            "[node]\n\tname = \"ä\"\tid = 1\n",
            &[]
        ),
    ]));
}

// FAULTS 100, values that are each fine by themselves or only out of bounds.
#[test]
fn contradictions_are_refused_with_line_and_caret() {
    golden!(refusals(&[
        (
            "election not above two heartbeats",
            "[raft]\nheartbeat-interval = \"500ms\"\nelection-timeout = \"1s..2s\"\n",
            &[],
        ),
        (
            "only the heartbeat is given",
            "[raft]\nheartbeat-interval = \"1s\"\n",
            &[]
        ),
        (
            "range backwards",
            "[raft]\nelection-timeout = \"2s..1s\"\n",
            &[]
        ),
        (
            "zero heartbeat",
            "[raft]\nheartbeat-interval = \"0s\"\n",
            &[]
        ),
        (
            "zero session timeout",
            "[genesis]\nsession-timeout = \"0s\"\n",
            &[]
        ),
        (
            "session timeout above its maximum",
            "[genesis]\nsession-timeout = \"2h\"\nsession-timeout-max = \"1h\"\n",
            &[],
        ),
        (
            "duplicate address",
            "[cluster.peers]\n1 = \"tcp://a:1\"\n2 = \"tcp://b:1\"\n3 = \"tcp://a:1\"\n",
            &[],
        ),
        ("empty peers", "[cluster]\npeers = {}\n", &[]),
        (
            "own id missing",
            "[node]\nid = 9\n[cluster.peers]\n1 = \"tcp://a:1\"\n",
            &[]
        ),
        ("node id 0", "[node]\nid = 0\n", &[]),
        (
            "same port twice",
            "[listen]\nadmin = \"127.0.0.1:7400\"\n",
            &[]
        ),
        (
            "client port as peer",
            "[cluster.peers]\n1 = \"tcp://127.0.0.1:7400\"\n",
            &[]
        ),
        (
            "reachable from outside",
            "[listen]\nclient = \"tcp://192.0.2.1:7400\"\n",
            &[]
        ),
        (
            "everywhere without an address to tell",
            "[listen]\ninsecure = true\nclient = \"tcp://0.0.0.0:7400\"\n",
            &[],
        ),
        ("too much log", "[raft]\nlog-keep = \"2TiB\"\n", &[]),
        ("half a page", "[genesis]\nmemory-max = \"1025KiB\"\n", &[]),
        ("empty data directory", "[node]\ndata-dir = \"\"\n", &[]),
        (
            "several at once",
            "[node]\nid = 0\n[gateway]\nconnections-max = 0\n",
            &[]
        ),
    ]));
}

// FAULTS 100, environment.
#[test]
fn bad_variables_are_refused_by_name() {
    let file = "[raft]\nelection-timeout = \"1s..2s\"\n";
    golden!(refusals(&[
        ("unknown key", file, &[("QUORATE_RAFT__HEARTBEAT", "1s")]),
        (
            "unknown table",
            file,
            &[("QUORATE_RAFTS__HEARTBEAT_INTERVAL", "1s")]
        ),
        (
            "one underscore",
            file,
            &[("QUORATE_RAFT_HEARTBEAT_INTERVAL", "1s")]
        ),
        ("wrong type", file, &[("QUORATE_NODE__ID", "one")]),
        (
            "wrong unit",
            file,
            &[("QUORATE_RAFT__HEARTBEAT_INTERVAL", "1 parsec")]
        ),
        (
            "conflict with the file",
            file,
            &[("QUORATE_RAFT__HEARTBEAT_INTERVAL", "900ms")]
        ),
        (
            "below a value",
            file,
            &[("QUORATE_RAFT__ELECTION_TIMEOUT__MIN", "1s")]
        ),
    ]));
}

#[test]
fn variables_that_are_not_unicode_are_refused_by_name() {
    let value = OsString::from_vec(vec![0xff]);
    let error = environment([("QUORATE_NODE__DATA_DIR".into(), value.clone())]).unwrap_err();
    let expected = "the value of QUORATE_NODE__DATA_DIR is not UTF-8";
    assert_eq!(error.to_string(), expected);
    // Others are none of ours.
    assert_eq!(
        environment([("QUORATE_ENDPOINTS".into(), value)]),
        Ok(Vec::new())
    );
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let huge = vec![b'#'; 1 << 20];
    let error = load_text(&huge, &[]).unwrap_err();
    assert!(
        error.starts_with("quorate.toml is longer than 256 KiB"),
        "{error}"
    );

    let error = load_text(b"[node]\nname = \"\xff\"\n", &[]).unwrap_err();
    assert!(error.starts_with("quorate.toml:2: not UTF-8"), "{error}");

    let missing = PathBuf::from(OsString::from_vec(b"/nonexistent/\xff.toml".to_vec()));
    let layers = Layers {
        file: Some(missing),
        overrides: Vec::new(),
    };
    let error = load(&layers).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read /nonexistent/\u{fffd}.toml: "),
        "{error}"
    );
}

#[test]
fn flags_win_over_variables_over_file() {
    let file = b"[node]\nid = 2\nname = \"file\"\n[cluster.peers]\n2 = \"tcp://a:1\"\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quorate.toml");
    fs::write(&path, file).unwrap();
    let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    let mut overrides = environment([
        variable("QUORATE_NODE__NAME", "variable"),
        variable("QUORATE_GATEWAY__CONNECTIONS_MAX", "7"),
        variable("QUORATE_GATEWAY__ACCEPT_VERSION_1", "true"),
        variable("QUORATE_CLUSTER__PEERS__3", "tcp://b:1"),
        variable("HOME", "/root"),
    ])
    .unwrap();
    let flag = Origin::Flag("--name".to_owned());
    overrides.push(Override {
        key: "node.name".to_owned(),
        value: "flag".to_owned(),
        origin: flag.clone(),
    });
    let loaded = load(&Layers {
        file: Some(path.clone()),
        overrides,
    })
    .unwrap();
    assert_eq!(loaded.config.node_name(), "flag");
    assert_eq!(loaded.config.gateway.connections_max, 7);
    assert!(loaded.config.gateway.accept_version_1);
    assert_eq!(
        loaded
            .config
            .cluster
            .peers
            .0
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [2, 3]
    );

    let origin = |key: &str| {
        let setting = loaded.settings().iter().find(|setting| setting.key == key);
        setting.map(|setting| setting.origin.clone())
    };
    assert_eq!(origin("node.id"), Some(Origin::File(path)));
    assert_eq!(origin("node.name"), Some(flag));
    let variable = Origin::Variable("QUORATE_GATEWAY__CONNECTIONS_MAX".to_owned());
    assert_eq!(origin("gateway.connections-max"), Some(variable));
    assert_eq!(origin("raft.log-keep"), Some(Origin::Default));
}

#[test]
fn insecure_allows_what_others_reach() {
    let text = "[listen]\ninsecure = true\nclient = \"tcp://0.0.0.0:7400\"\n\
                advertise-client = \"tcp://node-1.example:7400\"\n";
    let config = load_text(text.as_bytes(), &[]).unwrap().config;
    assert_eq!(
        config.client_endpoint().to_string(),
        "tcp://node-1.example:7400"
    );
    assert_eq!(config.admin_address().to_string(), "127.0.0.1:7402");
}

#[test]
fn values_are_written_as_they_are_read() {
    for text in ["1B", "1KiB", "64MiB", "3GiB", "2TiB", "1000B", "0B"] {
        assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
    }
    assert_eq!("1.5GiB".parse::<Size>().unwrap(), Size::mib(1536));
    for text in ["", "5", "MiB", "5 parsecs", "-1KiB"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    for text in [
        "tcp://[::1]:7400",
        "tcp://node_1.example:1",
        "tcp://127.0.0.1:65535",
    ] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
    for text in [
        "tcp://a",
        "tcp://:1",
        "tcp://a:0",
        "tcp://a:+1",
        "tcp://a:b:1",
        "ipc://a:1",
    ] {
        assert!(text.parse::<Endpoint>().is_err(), "{text}");
    }
    for text in ["kv", "counter", "work-queue", "./a.wasm", "dir/module"] {
        assert_eq!(text.parse::<ModuleSource>().unwrap().to_string(), text);
    }
}
