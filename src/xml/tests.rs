//! Tests of the reader, of [`ElementReader`] and of the writer together.

use proptest::prelude::*;

use super::*;

fn fails(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn each_element_attribute_and_text_knows_its_place() {
    let text = "<?xml version='1.0' encoding='UTF-8'?>\n<!-- ä -->\n<a x='1'\n   y=\"&lt;ß&#x41;\">\n  <b/> t&amp;u<![CDATA[<v>]]>\n</a>\n";
    let a = read(text.as_bytes()).unwrap();
    assert_eq!((a.name.as_str(), a.place.to_string()), ("a", "3:1".to_owned()));
    let found: Vec<_> = a
        .attributes
        .iter()
        .map(|a| {
            let (place, value_place) = (a.place.to_string(), a.value_place.to_string());
            (a.name.as_str(), a.value.as_str(), place, value_place)
        })
        .collect();
    let place = |p: &str| p.to_owned();
    assert_eq!(
        found,
        [("x", "1", place("3:4"), place("3:7")), ("y", "<ßA", place("4:4"), place("4:7"))]
    );
    assert_eq!(a.children[0].place.to_string(), "5:3");
    assert_eq!(a.text.trim(), "t&u<v>");
    assert_eq!(a.text_place.unwrap().to_string(), "5:8");
}

#[test]
fn equivalent_forms_are_read_alike() {
    let plain = read(b"<a b='c d'/>").unwrap();
    for text in ["<a b='c d'></a>", "<a b=\"c\nd\" />", "<a b = 'c\r\nd'/>", "<a b='c&#32;d'/>"] {
        let other = read(text.as_bytes()).unwrap();
        assert_eq!(other.attributes[0].value, plain.attributes[0].value, "{text}");
        assert!(other.children.is_empty() && other.text.is_empty());
    }
    for encoding in ["utf-8", "UTF-8", "US-ASCII", "ISO-8859-1"] {
        let text = format!("<?xml version='1.0' encoding='{encoding}'?><a b='c d'/>");
        assert_eq!(read(text.as_bytes()).unwrap().attributes[0].value, "c d");
    }
    assert_eq!(read("\u{feff}<a/>".as_bytes()).unwrap().place, Position::START);
    assert_eq!(read(b"<a>x\r\ny\rz</a>").unwrap().text, "x\ny\nz");
}

#[test]
fn each_refused_document_has_an_error_with_its_place() {
    for (text, error) in [
        ("", "1:1: the document is empty"),
        ("  \n <!-- --> ", "2:11: the document is empty"),
        ("x", "1:1: a document is one element"),
        ("<a/>x", "1:5: a document is one element"),
        ("<a/>\n<b/>", "2:1: a document is one element"),
        ("&amp;<a/>", "1:1: a document is one element"),
        ("<![CDATA[]]><a/>", "1:1: a document is one element"),
        ("<a/></a>", "1:5: </a> closes nothing: remove it"),
        ("<a>\n<b></a>", "2:4: </a> closes nothing: </b> comes first"),
        ("<a>\n<b>", "2:1: <b> is never closed: add </b>"),
        ("<a", "1:1: "),
        ("<a>&</a>", "1:4: '&' starts a reference"),
        ("<a>&x;</a>", "1:4: &x; stands for nothing"),
        ("<a>\n &#0;</a>", "2:2: &#0; stands for nothing"),
        ("<a>&#x110000;</a>", "1:4: &#x110000; stands"),
        ("<a>&#+65;</a>", "1:4: '&' starts a reference"),
        ("<a>&#;</a>", "1:4: '&' starts a reference"),
        ("<a b='&\n;'/>", "1:7: '&' starts a reference"),
        ("<a></a\tb>", "1:4: </a\\tb> closes nothing"),
        ("<a b='1 &x;'/>", "1:9: &x; stands"),
        ("<a b='&'/>", "1:7: '&' starts a reference"),
        ("<a b='<'/>", "1:7: '<' cannot be in a value"),
        ("<a>]]></a>", "1:4: ']]>' cannot be in text"),
        ("<!DOCTYPE a><a/>", "1:1: a document type definition"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "1:1: a document type definition"),
        ("<?php x?><a/>", "1:1: the processing instruction <?php?>"),
        (" <?xml version='1.0'?><a/>", "1:2: <?xml?> can only be the first"),
        ("<?xml version='1.1'?><a/>", "1:1: XML of version '1.1'"),
        ("<?xml version='1.0' encoding='latin1'?><a>ä</a>", "1:1: the encoding 'latin1'"),
        ("<?xml version='1.0' encoding='utf-16'?><a/>", "1:1: the encoding 'utf-16'"),
        ("<?xml?><a/>", "1:1: <?xml?> needs a version first"),
        ("<?xml v\u{9b}\nn='1.0'?><a/>", "1:1: an attribute needs a value"),
        ("<?xml v\u{9b}n='1.0'?><a/>", "1:1: <?xml?> needs a version first"),
        ("<?xml version=1.0?><a/>", "1:1: a value needs quotes"),
        ("<?xml version='1.0' encoding?><a/>", "1:1: an attribute needs a value"),
        ("<a b='1' b='2'/>", "1:10: the attribute b is there already, at 1:4"),
        ("<a b='1'c='2'/>", "1:9: attributes are separated by white space"),
        ("<a b/>", "1:5: an attribute needs a value"),
        ("<a b=1/>", "1:6: a value needs quotes"),
        ("<x:a/>", "1:1: 'x:a' uses a namespace"),
        ("<a xmlns='u'/>", "1:4: 'xmlns' uses a namespace"),
        ("<a xmlns:x='u' x:y='z'/>", "1:16: 'x:y' uses a namespace"),
        ("<a xmlns:='u'/>", "1:4: '' is not a name"),
        ("<1/>", "1:1: '1' is not a name"),
        ("<a ä='1'/>", "1:4: 'ä' is not a name"),
        ("<></>", "1:1: '' is not a name"),
        ("<a>\u{1}</a>", "1:4: the character U+0001"),
        ("<!-- -- --><a/>", "1:1: '--' cannot be in a comment"),
    ] {
        let found = fails(text);
        assert!(found.starts_with(error), "{text:?}: {found}");
        assert_eq!(found.lines().count(), 1);
    }
    let error = read(b"<a>\n\xc3\xa4\xff</a>").unwrap_err();
    assert_eq!((error.place.to_string(), error.what), ("2:2".to_owned(), XmlErrorKind::NotUtf8));
}

#[test]
fn a_document_at_a_limit_is_read_and_one_above_it_is_refused() {
    let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert!(read(deep(MAX_DEPTH).as_bytes()).is_ok());
    assert!(fails(&deep(MAX_DEPTH + 1)).contains("deeper"));
    assert!(fails(&"<a>".repeat(100_000)).contains("deeper"));
    let wide = |n: usize| format!("<a>{}</a>", "<b/>".repeat(n));
    assert!(read(wide(MAX_NODES - 1).as_bytes()).is_ok());
    assert!(fails(&wide(MAX_NODES)).contains("more than"));
    let large = |n: usize| format!("<a>{}</a>", " ".repeat(n - 7));
    assert!(read(large(MAX_BYTES).as_bytes()).is_ok());
    assert!(fails(&large(MAX_BYTES + 1)).contains("1048577 bytes"));
}

/// Many places on one long line need one pass over the text, not one pass each.
#[test]
fn long_lines_are_read_in_linear_time() {
    let mut text = "<a>".to_owned();
    text.push_str(&"<b c='d'/>".repeat(32_000));
    text.push_str(&" ".repeat(MAX_BYTES - text.len() - 4));
    text.push_str("</a>");
    let start = std::time::Instant::now();
    assert_eq!(read(text.as_bytes()).unwrap().children.len(), 32_000);
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

const FORMAT: Format = Format { kept: &["kept"], namespaces: &[("urn:known", "known")] };

fn kept(text: &str) -> Result<String, XmlError> {
    let root = read_format(text.as_bytes(), &FORMAT)?;
    let mut reader = ElementReader::root(&root, "a")?;
    let content = match reader.child("kept")? {
        Some(element) => element.take(|reader| Ok(reader.kept().clone()))?,
        None => Foreign::default(),
    };
    reader.finish()?;
    Ok(Tag::new("a").children([Tag::foreign("kept", content)]).to_string())
}

#[test]
fn kept_content_is_the_same_xml_in_every_document() {
    for (content, written) in [
        ("<b/>", "<b/>"),
        (" x &amp; <![CDATA[<y>]]><!-- c --> ", " x &amp; &lt;y&gt;<!-- c --> "),
        ("<b:c xmlns:b='u' b:d=\"'\"/>", "<b:c xmlns:b='u' b:d='&apos;'/>"),
        ("<b xmlns='u'><c>1</c>2<d/></b>", "<b xmlns='u'><c>1</c>2<d/></b>"),
        ("<o:b/><o:c/>", "<o:b xmlns:o='outer'/><o:c xmlns:o='outer'/>"),
        ("<b><o:c o:d=''/></b>", "<b xmlns:o='outer'><o:c o:d=''/></b>"),
        ("<b><o:c xmlns:o='in'/></b>", "<b><o:c xmlns:o='in'/></b>"),
        ("<b xml:lang='de'>ß</b>", "<b xml:lang='de'>ß</b>"),
        ("<k:b/>", "<k:b xmlns:k='kept'/>"),
        ("<!-- \u{9b}31m -->", "<!-- \u{fffd}31m -->"),
        ("<b>\u{9b}</b>", "<b>&#155;</b>"),
    ] {
        let document = format!("<a xmlns:o='outer'><kept xmlns:k='kept'>{content}</kept></a>");
        let once = kept(&document).unwrap();
        assert_eq!(once, format!("<a>\n  <kept>{written}</kept>\n</a>\n"), "{content}");
        assert_eq!(kept(&once).unwrap(), once, "{content}");
    }
}

#[test]
fn kept_content_that_is_no_xml_with_namespaces_is_refused() {
    for (document, error) in [
        ("<a><kept><x:b/></kept></a>", "1:10: 'x' has a prefix that is not declared"),
        ("<a><kept><b x:c=''/></kept></a>", "1:10: 'x' has a prefix that is not declared"),
        ("<a><kept><b:c:d xmlns:b='u'/></kept></a>", "1:10: 'c:d' uses a namespace"),
        ("<a><kept><?php?></kept></a>", "1:10: the processing instruction <?php?>"),
        ("<a><kept><b></kept></a>", "1:13: </kept> closes nothing: </b> comes first"),
        ("<a><kept xmlns='u'/></a>", "1:10: 'xmlns' uses a namespace"),
        ("<a><kept b='1'/></a>", "1:10: the attribute b is not known in <kept>"),
        ("<a xmlns:x='u'><x:kept/></a>", "1:16: 'x:kept' uses a namespace"),
        ("<a><b><kept><c/></kept></b></a>", "1:4: <b> is not known in <a>"),
    ] {
        assert!(
            kept(document).unwrap_err().to_string().starts_with(error),
            "{document}: {}",
            kept(document).unwrap_err()
        );
    }
    // Each child would declare the long namespace.
    let long =
        format!("<a xmlns:o='{}'><kept>{}</kept></a>", "u".repeat(500_000), "<o:b/>".repeat(9));
    assert!(kept(&long).unwrap_err().to_string().contains("more than"));
}

#[test]
fn an_element_of_a_known_namespace_has_the_parsers_prefix() {
    for document in [
        "<a xmlns:known='urn:known'><known:b/></a>",
        "<a xmlns:x='urn:known'><x:b></x:b></a>",
        "<a><x:b xmlns:x='urn:known'/></a>",
        "<a><b xmlns='urn:known'/></a>",
        "<a xmlns:x='other'><x:b xmlns:x='urn:known'/></a>",
    ] {
        let root = read_format(document.as_bytes(), &FORMAT).unwrap();
        assert_eq!(root.children[0].name, "known:b", "{document}");
    }
    for document in [
        "<a><x:b xmlns:x='urn:known'/><x:b/></a>",
        "<a xmlns:x='urn:known'><x:b xmlns:x='other'/></a>",
        "<a xmlns:x='urn:known'><b x:c='1'/></a>",
        "<a><:b xmlns='urn:known'/></a>",
    ] {
        let error = read_format(document.as_bytes(), &FORMAT).unwrap_err();
        assert!(matches!(error.what, XmlErrorKind::Namespace(_)), "{document}: {error}");
    }
}

fn taken(text: &str) -> Result<(Option<u8>, usize), XmlError> {
    let root = read(text.as_bytes())?;
    let mut reader = ElementReader::root(&root, "a")?;
    reader.refuse_children(&["old"])?;
    reader.refuse_attributes(&["older"])?;
    let number = reader.value("n")?;
    reader.yes_no("yes")?;
    let one = reader.child("one")?;
    if let Some(one) = one {
        one.take(|one| one.text_value::<u8>())?;
    }
    let many = reader.children("many").count();
    for m in reader.children_of(&["many", "more"]) {
        m.take(|m| m.required::<u8>("x"))?;
    }
    reader.finish()?;
    Ok((number, many))
}

#[test]
fn a_part_that_the_parser_does_not_take_is_an_error_that_names_it() {
    assert_eq!(taken("<a n='7'><many x='1'/><one>2</one><more x='3'/></a>"), Ok((Some(7), 1)));
    assert_eq!(taken("<a><!-- nothing --></a>"), Ok((None, 0)));
    for (text, error) in [
        ("<b/>", "1:1: the document is a <b>, and a <a> is wanted"),
        ("<a n='x'/>", "1:7: n of <a>: invalid digit"),
        ("<a yes='1'/>", "1:9: yes of <a>: \"1\" is not a value of it: use yes or no"),
        ("<a m='1'/>", "1:4: the attribute m is not known in <a>: use n, yes, or remove it"),
        ("<a><c/></a>", "1:4: <c> is not known in <a>: use one, many, more, or remove it"),
        ("<a>\n x<c/></a>", "2:2: <a> has no text: remove it"),
        ("<a><c/>x</a>", "1:4: <c> is not known"),
        ("<a><one>1</one> <one>1</one></a>", "1:17: <a> has a <one> already, at 1:4"),
        ("<a><one>\n x</one></a>", "2:2: <one>: invalid digit"),
        ("<a><one y='1'>1</one></a>", "1:9: the attribute y is not known in <one>, which has no"),
        ("<a><one>1<z/></one></a>", "1:10: <z> is not known in <one>, which has no elements"),
        ("<a><many/></a>", "1:4: <many> needs the attribute x: add it"),
        ("<a><old/></a>", "1:4: <old> is not supported by netlaunch; remove it"),
        ("<a older=''/>", "1:4: the attribute older of <a> is not supported by netlaunch"),
    ] {
        let found = taken(text).unwrap_err().to_string();
        assert!(found.starts_with(error), "{text}: {found}");
    }
}

#[test]
fn a_tag_is_written_in_libvirts_style() {
    let tag = Tag::new("a")
        .attribute("b", "it's <&> \"\t")
        .optional("c", None::<u8>)
        .children([Tag::new("d").optional("e", Some(1)), Tag::text("f", "<&>'\r")]);
    let text = "<a b='it&apos;s &lt;&amp;&gt; &quot;&#9;'>\n  <d e='1'/>\n  <f>&lt;&amp;&gt;'&#13;</f>\n</a>\n";
    assert_eq!(tag.to_string(), text);
    assert!(Tag::new("a").is_empty() && !tag.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn an_error_on_any_markup_is_one_line_within_the_document(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "<", ">", "/>", "</", "a", "b", " ", "\n", "\r", "=", "'", "\"", "&", ";", "#", "x4", "!",
                "--", "<!--", "-->", "<![CDATA[", "]]>", "<?xml", "?>", "<!DOCTYPE", "[", "ä", "<a>",
                "</a>", "<a b='", "'/>", ":", "version='1.0'",
            ]),
            0..40,
        )
    ) {
        let text = parts.concat();
        if let Err(error) = read(text.as_bytes()) {
            prop_assert!(error.place.line <= text.split('\n').count());
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn a_written_value_is_read_back_unchanged(
        value in "[^\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{fffe}\u{ffff}]{0,20}",
    ) {
        let tag = Tag::new("a").attribute("b", &value).children([Tag::text("c", &value)]);
        let back = read(tag.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&back.attributes[0].value, &value);
        prop_assert_eq!(&back.children[0].text, &value);
    }
}
