//! A reader who follows a page: types its commands one after the other, each kind into a program of its own that stays open,
//! and sees what the page shows.

use crate::docs::{self, Block};
use crate::{Database, environment, scratch};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Printed after each block; no page has it.
const END: &str = "\u{1}end\u{1}\n";

const SHELL: &str = r#"
set -euo pipefail
while IFS= read -r -d '' block; do
  eval "$block" </dev/null
  printf '\1end\1\n'
done
"#;

const PYTHON: &str = r#"
import json, sys
names = {"__name__": "__main__"}
for block in sys.stdin:
    exec(compile(json.loads(block), "the page", "exec"), names)
    print("\x01end\x01", flush=True)
"#;

/// What commands a page may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// psql, as a superuser.
    Sql,
    Shell,
    Python,
}

impl Kind {
    fn of(language: &str) -> Option<Self> {
        match language {
            "sql" => Some(Self::Sql),
            "sh" => Some(Self::Shell),
            "python" => Some(Self::Python),
            _ => None,
        }
    }
}

/// Somebody who reads pages beside a database.
pub struct Reader<'database> {
    database: &'database Database<'database>,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    programs: Vec<(Kind, Program)>,
}

impl<'database> Reader<'database> {
    /// Sits down in an empty directory, before a database.
    pub fn new(database: &'database Database<'database>) -> Self {
        Self { database, directory: scratch(), environment: Vec::new(), programs: Vec::new() }
    }

    /// Sets a variable that a page takes for granted.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does what a page says in the languages named, and gives all that was printed. Fails the test where a command fails,
    /// unless the page shows its error, and where other things are printed than the page shows in a block of `text`.
    #[track_caller]
    pub fn follow(&mut self, page: &str, languages: &[&str]) -> String {
        let blocks = docs::all_blocks(&docs::read(page));
        let mut transcript = String::new();
        let mut commands = 0;
        for (place, block) in blocks.iter().enumerate() {
            let Some(kind) = Kind::of(&block.language).filter(|_| languages.contains(&&*block.language))
            else {
                continue;
            };
            let shown = blocks.get(place + 1).filter(|next| next.language == "text");
            let fails = shown.is_some_and(|shown| shown.text.contains("ERROR: "));
            let printed = self.program(kind).run(kind, &block.text, fails).unwrap_or_else(|printed| {
                panic!("{page}:{}: this failed:\n{}\n{printed}", block.line, block.text)
            });
            if let Some(Block { text, line, .. }) = shown {
                assert!(
                    docs::shows(text, &printed),
                    "{page}:{line} shows\n{text}and this was printed:\n{printed}"
                );
            }
            transcript.push_str(&printed);
            commands += 1;
        }
        assert!(commands > 0, "{page} has no command");
        transcript
    }

    fn program(&mut self, kind: Kind) -> &mut Program {
        if let Some(open) = self.programs.iter().position(|(of, _)| *of == kind) {
            return &mut self.programs[open].1;
        }
        let program = Program::start(self.command(kind));
        self.programs.push((kind, program));
        &mut self.programs.last_mut().expect("one was just added").1
    }

    fn command(&self, kind: Kind) -> Command {
        // Both outputs through one pipe, in the order in which they are written.
        let mut command = self.database.cluster().client_program("/bin/sh");
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]);
        match kind {
            // By lines, or what psql prints comes after what the programs print that it starts.
            Kind::Sql => command.args(["stdbuf", "-oL", "psql", "-X", "-v", "ON_ERROR_STOP=1"]),
            Kind::Shell => command.args(["bash", "-c", SHELL]),
            Kind::Python => command.arg(environment::python()).args(["-u", "-c", PYTHON]),
        };
        let path = std::env::var("PATH").expect("the tests have a PATH");
        command
            .env("PATH", format!("{}:{path}", environment::postgres_programs().display()))
            .env("PGDATABASE", self.database.name())
            .env("HOME", &self.directory)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory);
        command
    }
}

/// An open psql, shell or Python.
struct Program {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Program {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the reader's program");
        let input = child.stdin.take().expect("it has a pipe");
        let output = child.stdout.take().expect("it has a pipe");
        Self { child, input, output }
    }

    /// What a block printed; or as the error, what it printed until it ended the program.
    fn run(&mut self, kind: Kind, block: &str, fails: bool) -> Result<String, String> {
        let typed = match kind {
            Kind::Sql if fails => {
                format!("\\set ON_ERROR_STOP off\n{block}\\set ON_ERROR_STOP on\n\\echo '\\001end\\001'\n")
            }
            Kind::Sql => format!("{block}\\echo '\\001end\\001'\n"),
            Kind::Shell => format!("{block}\0"),
            Kind::Python => format!("{}\n", serde_json::Value::from(block)),
        };
        // A program that has ended says why.
        let written = self.input.write_all(typed.as_bytes()).and_then(|()| self.input.flush());
        let mut printed = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = self.output.read(&mut chunk).expect("read what the program prints");
            printed.extend_from_slice(&chunk[..count]);
            let text = || String::from_utf8_lossy(&printed).into_owned();
            if let Some(before) = text().strip_suffix(END) {
                return Ok(before.to_owned());
            } else if count == 0 {
                return Err(format!("{}{:?}", text(), written));
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
