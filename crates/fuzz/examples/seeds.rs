//! Writes generated inputs into a directory, for a guided fuzzer to begin with: `seeds DIRECTORY COUNT`.

use pg_storage_fuzz::generate::Generator;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = std::path::PathBuf::from(arguments.next().ok_or("name a directory")?);
    let count: u32 = arguments.next().ok_or("say how many")?.parse()?;
    std::fs::create_dir_all(&directory)?;
    let mut generator = Generator::new(1);
    for number in 0..count {
        std::fs::write(directory.join(format!("seed-{number}")), generator.input())?;
    }
    Ok(())
}
