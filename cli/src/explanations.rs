//! The pages of docs/errors, in the binary.

use crate::failure::Slug;

/// The page of `slug`.
pub(crate) fn page(slug: &str) -> Option<&'static str> {
    let mut pages = Slug::PAGES.iter();
    pages
        .find(|(known, _)| known.text() == slug)
        .map(|(_, page)| *page)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_page_is_of_a_slug_and_begins_with_it() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let files: BTreeSet<String> = std::fs::read_dir(directory)
            .expect("the folder exists")
            .map(|file| {
                file.expect("it can be read")
                    .file_name()
                    .into_string()
                    .expect("ASCII")
            })
            .collect();
        let known: BTreeSet<String> = Slug::PAGES
            .iter()
            .map(|(slug, _)| format!("{}.md", slug.text()))
            .collect();
        assert_eq!(files, known);
        for (slug, page) in Slug::PAGES {
            let slug = slug.text();
            assert!(page.starts_with(&format!("# {slug}\n\n")), "{slug}");
            assert!(
                page.contains("\n## What to do\n"),
                "{slug} says nothing to do"
            );
        }
    }
}
