//! The original Porter stemmer, with the two departures that Lucene has: `-bli` becomes `-ble`, and `-logi` becomes `-log`.
//!
//! Generic over the character, so that a word in ASCII, which nearly all are, is stemmed as the bytes that it is.

/// A character of a word.
pub(super) trait Letter: Copy + Eq + From<u8> {}

impl Letter for u8 {}
impl Letter for char {}

/// Cuts a word in lower case down to its stem.
pub(super) fn stem<L: Letter>(word: &mut Vec<L>) {
    if word.len() <= 2 {
        return;
    }
    plural(word);
    past_and_gerund(word);
    if ends(word, b"y") && has_vowel(&word[..word.len() - 1]) {
        replace(word, 1, b"i");
    }
    replace_first(word, STEP_2);
    replace_first(word, STEP_3);
    long_suffix(word);
    final_e(word);
}

/// Pairs of a suffix and what takes its place.
type Rules = &'static [(&'static [u8], &'static [u8])];

const STEP_2: Rules = &[
    (b"ational", b"ate"),
    (b"tional", b"tion"),
    (b"enci", b"ence"),
    (b"anci", b"ance"),
    (b"izer", b"ize"),
    (b"bli", b"ble"),
    (b"alli", b"al"),
    (b"entli", b"ent"),
    (b"eli", b"e"),
    (b"ousli", b"ous"),
    (b"ization", b"ize"),
    (b"ation", b"ate"),
    (b"ator", b"ate"),
    (b"alism", b"al"),
    (b"iveness", b"ive"),
    (b"fulness", b"ful"),
    (b"ousness", b"ous"),
    (b"aliti", b"al"),
    (b"iviti", b"ive"),
    (b"biliti", b"ble"),
    (b"logi", b"log"),
];

const STEP_3: Rules = &[
    (b"icate", b"ic"),
    (b"ative", b""),
    (b"alize", b"al"),
    (b"iciti", b"ic"),
    (b"ical", b"ic"),
    (b"ful", b""),
    (b"ness", b""),
];

const STEP_4: [&[u8]; 18] = [
    b"al", b"ance", b"ence", b"er", b"ic", b"able", b"ible", b"ant", b"ement", b"ment", b"ent", b"ou",
    b"ism", b"ate", b"iti", b"ous", b"ive", b"ize",
];

/// Step 1a: `-sses`, `-ies`, `-s`.
fn plural<L: Letter>(word: &mut Vec<L>) {
    if ends(word, b"sses") || ends(word, b"ies") {
        word.truncate(word.len() - 2);
    } else if ends(word, b"s") && !ends(word, b"ss") {
        word.pop();
    }
}

/// Step 1b: `-eed`, `-ed`, `-ing`.
fn past_and_gerund<L: Letter>(word: &mut Vec<L>) {
    if ends(word, b"eed") {
        if measure(&word[..word.len() - 3]) > 0 {
            word.pop();
        }
        return;
    }
    let cut = if ends(word, b"ed") {
        2
    } else if ends(word, b"ing") {
        3
    } else {
        return;
    };
    if !has_vowel(&word[..word.len() - cut]) {
        return;
    }
    word.truncate(word.len() - cut);
    if ends(word, b"at") || ends(word, b"bl") || ends(word, b"iz") {
        word.push(L::from(b'e'));
    } else if ends_in_double_consonant(word) {
        if ![b'l', b's', b'z'].iter().any(|&letter| word.last() == Some(&L::from(letter))) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_in_short_syllable(word) {
        word.push(L::from(b'e'));
    }
}

/// Steps 2 and 3: the first suffix that matches decides, whether enough is left without it or not.
fn replace_first<L: Letter>(word: &mut Vec<L>, rules: Rules) {
    if let Some((suffix, replacement)) = rules.iter().find(|(suffix, _)| ends(word, suffix))
        && measure(&word[..word.len() - suffix.len()]) > 0
    {
        replace(word, suffix.len(), replacement);
    }
}

/// Step 4: takes one more suffix from a long stem; `-ion` only after `s` or `t`.
fn long_suffix<L: Letter>(word: &mut Vec<L>) {
    let cut = match STEP_4.iter().find(|suffix| ends(word, suffix)) {
        Some(suffix) => suffix.len(),
        None if ends(word, b"sion") || ends(word, b"tion") => 3,
        None => return,
    };
    if measure(&word[..word.len() - cut]) > 1 {
        word.truncate(word.len() - cut);
    }
}

/// Step 5: a final `-e`, and `-ll`.
fn final_e<L: Letter>(word: &mut Vec<L>) {
    if ends(word, b"e") {
        let stem = &word[..word.len() - 1];
        let measure = measure(stem);
        if measure > 1 || (measure == 1 && !ends_in_short_syllable(stem)) {
            word.pop();
        }
    }
    if ends(word, b"ll") && measure(word) > 1 {
        word.pop();
    }
}

fn ends<L: Letter>(word: &[L], suffix: &[u8]) -> bool {
    word.len() >= suffix.len()
        && word[word.len() - suffix.len()..].iter().zip(suffix).all(|(&a, &b)| a == L::from(b))
}

fn replace<L: Letter>(word: &mut Vec<L>, cut: usize, suffix: &[u8]) {
    word.truncate(word.len() - cut);
    word.extend(suffix.iter().map(|&letter| L::from(letter)));
}

/// Whether each character is a consonant: `y` is one at the start and after a vowel.
fn consonants<L: Letter>(word: &[L]) -> impl Iterator<Item = bool> {
    let mut before = false;
    word.iter().enumerate().map(move |(index, &letter)| {
        let is_vowel = b"aeiou".iter().any(|&vowel| letter == L::from(vowel));
        before = if letter == L::from(b'y') { index == 0 || !before } else { !is_vowel };
        before
    })
}

/// How many runs of vowels are followed by a consonant.
fn measure<L: Letter>(word: &[L]) -> usize {
    let mut measure = 0;
    let mut after_vowel = false;
    for is_consonant in consonants(word) {
        measure += usize::from(is_consonant && after_vowel);
        after_vowel = !is_consonant;
    }
    measure
}

fn has_vowel<L: Letter>(word: &[L]) -> bool {
    consonants(word).any(|is_consonant| !is_consonant)
}

fn ends_in_double_consonant<L: Letter>(word: &[L]) -> bool {
    matches!(word, [.., a, b] if a == b) && consonants(word).last() == Some(true)
}

/// Consonant, vowel, consonant other than `w`, `x` and `y`: the syllable that an `e` had followed.
fn ends_in_short_syllable<L: Letter>(word: &[L]) -> bool {
    let Some(start) = word.len().checked_sub(3) else { return false };
    consonants(word).skip(start).eq([true, false, true])
        && ![b'w', b'x', b'y'].iter().any(|&letter| word.last() == Some(&L::from(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_porter_cuts_them() {
        // From the paper, and what Lucene adds to it.
        let cases = "caresses caress|ponies poni|ties ti|caress caress|cats cat|feed feed|agreed agre|plastered plaster|\
            bled bled|motoring motor|sing sing|conflated conflat|troubled troubl|sized size|hopping hop|tanned tan|\
            falling fall|hissing hiss|fizzed fizz|failing fail|filing file|happy happi|sky sky|relational relat|\
            conditional condit|rational ration|valenci valenc|hesitanci hesit|digitizer digit|conformabli conform|\
            radicalli radic|differentli differ|vileli vile|analogousli analog|vietnamization vietnam|predication predic|\
            operator oper|feudalism feudal|decisiveness decis|hopefulness hope|callousness callous|formaliti formal|\
            sensitiviti sensit|sensibiliti sensibl|triplicate triplic|formative form|formalize formal|electriciti electr|\
            electrical electr|hopeful hope|goodness good|revival reviv|allowance allow|inference infer|airliner airlin|\
            gyroscopic gyroscop|adjustable adjust|defensible defens|irritant irrit|replacement replac|adjustment adjust|\
            dependent depend|adoption adopt|homologou homolog|communism commun|activate activ|angulariti angular|\
            homologous homolog|effective effect|bowdlerize bowdler|probate probat|rate rate|cease ceas|controll control|\
            roll roll|possibly possibl|archaeologi archaeolog|is is|as as|by by|__init__ __init__|tests test|y2 y2|\
            sayings sai|yes ye|1024s 1024";
        for case in cases.split('|') {
            let (word, expected) = case.split_once(' ').unwrap();
            let mut bytes = word.as_bytes().to_vec();
            stem(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{word}");
            let mut characters: Vec<char> = word.chars().collect();
            stem(&mut characters);
            assert_eq!(characters.into_iter().collect::<String>(), expected, "{word}");
        }
        let mut word: Vec<char> = "naïvetés".chars().collect();
        stem(&mut word);
        assert_eq!(word.into_iter().collect::<String>(), "naïveté");
    }
}
