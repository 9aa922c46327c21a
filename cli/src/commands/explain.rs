//! `quorate explain`: the page of an error.

use crate::args::Explain;
use crate::explanations::page;
use crate::failure::{Failure, Slug};
use crate::output::{Exit, print};

pub(crate) fn run(arguments: &Explain) -> Result<Exit, Box<Failure>> {
    let slug = arguments
        .slug
        .trim_start_matches("error[")
        .trim_end_matches(']');
    let Some(page) = page(slug) else {
        let known: Vec<_> = Slug::PAGES.iter().map(|(slug, _)| slug.text()).collect();
        let text = format!("there is no error {slug:?}");
        let failure = Failure::new(Exit::USAGE, Slug::NotAnError, text);
        return Err(failure.hint(format!("they are\n{}", known.join("\n"))));
    };
    print(page)?;
    Ok(Exit::OK)
}
