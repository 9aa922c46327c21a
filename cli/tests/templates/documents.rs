//! What README.md and docs/walkthrough.md have a reader type, typed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::ports::free_ports;
use crate::{Outside, has_no_compiler, quorate, succeeded, target_dir};

/// The cluster has ports of its own, and a busy machine more time.
const PRELUDE: &str = r#"
trap 'kill $(jobs -p) 2> /dev/null' EXIT
quorate() {
    case "$1" in
        dev) exec "$QUORATE" "$@" --client-port "$PORT" ;;
        *) "$QUORATE" "$@" --timeout 60s ;;
    esac
}
"#;

/// A fenced block of a document: what follows its fence, and its lines.
struct Block {
    kind: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for line in document.lines() {
        match line.strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(kind) => {
                is_open = true;
                let (kind, text) = (kind.to_owned(), String::new());
                blocks.push(Block { kind, text });
            }
            None if is_open => {
                let block = blocks.last_mut().unwrap();
                block.text += line;
                block.text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(path).unwrap()
}

/// The document's blocks as one script. The crate in `counter` is compiled into the folder that all templates share.
fn script(document: &str) -> String {
    let mut script = PRELUDE.to_owned();
    for (number, Block { kind, text }) in blocks(document).iter().enumerate() {
        match kind.split_once(" file=") {
            Some((_, file)) => {
                let end = format!("END_OF_FILE_{number}");
                script += &format!("cat > {file} <<'{end}'\n{text}{end}\n");
            }
            None if kind == "sh" => {
                script += text;
                if text.contains("quorate new counter") {
                    script += "ln -s \"$SHARED\" counter/target\n";
                }
            }
            None => {}
        }
    }
    script
}

/// Runs a script in a shell that ends at the first command that fails.
fn bash(folder: &Path, script: &str) -> Output {
    let path: PathBuf = folder.join("script");
    File::create(&path)
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let port = free_ports(10_000, 9).to_string();
    Command::new("bash")
        .args(["-euo", "pipefail", "script"])
        .current_dir(folder)
        .env("QUORATE", env!("CARGO_BIN_EXE_quorate"))
        .env("QUORATE_ENDPOINTS", format!("tcp://127.0.0.1:{port}"))
        .env("PORT", port)
        .env("SHARED", target_dir())
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether modules can be compiled here; says that the test is skipped if not.
fn can_build(outside: &Outside, what: &str) -> bool {
    fs::create_dir_all(&outside.folder).unwrap();
    let made = quorate(&outside.folder, &["new", "probe", "--template", "empty"]);
    succeeded("quorate new", &made);
    let built = quorate(&outside.folder, &["module", "build", "probe", "--offline"]);
    let said = String::from_utf8_lossy(&built.stderr);
    !has_no_compiler(&said, what)
}

/// What the reader's own checker says of answers that are not those of the cluster.
const TAMPER: &str = r#"
refuses() {
    if check; then
        echo "the checker takes $1"
        exit 90
    fi
}
cp answers.1 kept
head -n 1 kept >> answers.1
refuses "an answer that is there twice"
sed 1d kept > answers.1
refuses "an answer that is missing"
cp kept answers.1
(up=$((down - 1)); refuses "answers of version 2 where version 1 was in force")
(down=$((up + 1)); refuses "answers of version 2 where version 1 is in force again")
check
"#;

#[test]
fn the_walkthrough_does_what_it_says_and_its_checker_sees_what_is_wrong() {
    let outside = Outside::enter("walkthrough");
    if !can_build(&outside, "the walkthrough") {
        return;
    }
    let script = script(&document("docs/walkthrough.md")) + TAMPER;
    let output = bash(&outside.folder, &script);
    let printed = succeeded("docs/walkthrough.md", &output);
    let rights = printed
        .lines()
        .filter(|line| line.ends_with("all of them right"));
    assert_eq!(rights.count(), 2, "{printed}");
    assert!(printed.contains("its own migration"), "the plan: {printed}");
    let version_2 = printed.lines().any(|line| line.starts_with(r#"{"value":"#));
    assert!(version_2, "{printed}");
}

#[test]
fn five_commands_of_the_readme_replace_a_module_that_serves() {
    let outside = Outside::enter("readme");
    if !can_build(&outside, "the five commands") {
        return;
    }
    let readme = document("README.md");
    let blocks = blocks(&readme);
    let shell: Vec<_> = blocks.iter().filter(|block| block.kind == "sh").collect();
    assert_eq!(shell.len(), 1);
    assert_eq!(shell[0].text.lines().count(), 5, "{}", shell[0].text);
    let script = script(&readme) + "quorate call '{\"add\":5}'\n";
    let printed = succeeded("README.md", &bash(&outside.folder, &script));
    assert!(printed.contains("is in force since entry"), "{printed}");
    assert_eq!(printed.lines().last(), Some("50"), "{printed}");
}
