/**
 * The letters, marks and digits of logins: those that UTS 39 (Unicode 17) allows in identifiers, by script, in their
 * canonical form (NFKC, lower case). Letters that are obsolete, technical (`ɑ`, `ǀ`) or of a script out of everyday use
 * are not among them. A range may span code points that no canonical login contains.
 *
 * One difference: of Han it has the main block, U+4E00 to U+9FFF. Unicode 17 leaves out 1,304 rare ideographs of that
 * block and allows 154 of other blocks, which takes 1,257 ranges and prevents no look-alike.
 */

const allowed: Readonly<Record<string, string>> = {
  Latin:
    '61-7a df-113 117-12b 12f-137 13a-14d 151-155 159-161 165-17e 192 199 1a1 1b0-1b4 1ce-1d4 1dd 1e7-1e9 1ef 1f9 219-21b 24d ' +
    '253-254 256-257 259 25b 263 268-269 272 289 28b 292 1e0d 1e13 1e21 1e25 1e37 1e3d-1e3f 1e43-1e4b 1e5b 1e63 1e6d 1e71 1e8d ' +
    '1e93 1ea1-1ef9',
  Cyrillic: '430-44f 451-45c 45e-45f 491-49b 49f-4a5 4a9-4b7 4bb-4bf 4cf-4d9 4dd-4e9 4ef-4f5 4f9 525',
  Greek: '390-3ce 1fa0-1fa7 1fb2-1fb4',
  Arabic:
    '620-63a 63d 641-64a 660-669 672 674-68f 691-69a 69f-6a0 6a2 6a4-6ab 6ad-6b1 6b3 6b5-6b7 6ba-6be 6c0-6d5 6ee-6f9 6ff ' +
    '751-752 756 760 762-763 766-768 76a 76e-771 88f 8a0 8a2-8a9 8bb-8c2 8c7',
  Armenian: '561-586',
  Bengali: '981-98b 98f-9bc 9be-9ce 9e6-9f1',
  Devanagari: '901-903 905-90b 90d-928 92a-933 935-93c 93e-943 945-94d 94f 956-957 966-96f 972-977 97b-97c 97e-97f',
  Ethiopic: '1200-1206 1208-1286 1288-12ae 12b0-12f7 1300-130e 1310-131e 1320-1346 1348-1359 1e7e0-1e7fe',
  Georgian: '10d0-10f0',
  Gujarati: 'a82-abc abe-acd ae6-aef',
  Gurmukhi: 'a02 a05-a4d a5c a70-a71',
  Hebrew: '5d0-5ea',
  Kannada: 'c82-c8b c8e-cb0 cb2-cb9 cbe-cc3 cc6-ccd ce6-cef',
  Khmer: '1780-179c 179f-17a2 17a5-17a7 17aa-17b3 17b6-17cd 17d0 17d2 17e0-17e9',
  Lao: 'e81-e84 e87-e88 e8a e8d e94-e97 e99-e9f ea1-ea7 eaa-eab ead-eae eb0-eb9 ebb-ecd ed0-ed9',
  Malayalam: 'd02-d03 d05-d0b d0e-d28 d2a-d39 d3e-d43 d46-d4b d4d d57 d7a-d7f',
  Myanmar: '1000-1049 105a-1064 1075-108a 108f aa7b',
  Oriya: 'b01-b0b b0f-b33 b36-b3c b3e-b43 b47-b4d b56 b5f b71',
  Sinhala: 'd82-d8d d91-d9d d9f-dde df2',
  Tamil: 'b83-bcd',
  Telugu: 'c02-c03 c05-c0b c0e-c30 c32-c33 c35-c39 c3e-c4d',
  Thaana: '780-7b1',
  Thai: 'e01-e4d e50-e59',
  Tibetan: 'f20-f29 f40-f68 f71-f80 f84 f90-fad fb1-fbc',
  Han: '3005 4e00-9fff',
  Hiragana: '3041-3096 309d-309e',
  Katakana: '30a1-30fe',
  Hangul: 'ac00-d7a3',
  Common: '30-39 2bb-2bc 3006 30fc',
  Inherited: '300-304 306-30c 31b 323 326-328 331 64b-652 654-655 670',
};

/** Japanese and Korean are written in several scripts (UTS 39, 5.1); every other script is a writing system of its own. */
const mixed = [['Han', 'Hiragana', 'Katakana'], ['Han', 'Hangul']];
const shared = ['Common', 'Inherited'];
const alone = Object.keys(allowed).filter((script) => ![...mixed.flat(), ...shared].includes(script));

/** Matches text whose every character goes with one writing system. */
export const writingSystems: readonly RegExp[] = [...mixed, ...alone.map((script) => [script])].map(
  (scripts) => new RegExp(`^${classOf([...scripts, ...shared])}*$`, 'u'),
);

/** Matches one character of an accepted script, whether the character itself is allowed or not. */
export const acceptedScript = new RegExp(classOf(Object.keys(allowed)), 'u');

const ranges = Object.values(allowed).join(' ').replace(/ ?([0-9a-f]+)/g, '\\u{$1}');
/** Matches one letter, mark or digit that a login must not contain. */
export const disallowed = new RegExp(`(?=[\\p{L}\\p{M}\\p{Nd}])[^${ranges}]`, 'u');

/** What is written from right to left: letters and Arabic-Indic digits (Bidi classes R, AL and AN). */
export const rightToLeft = '(?![\\u06f0-\\u06f9])[\\p{Script=Arabic}\\p{Script=Hebrew}\\p{Script=Thaana}]';

function classOf(scripts: readonly string[]): string {
  return `[${scripts.map((script) => `\\p{Script_Extensions=${script}}`).join('')}]`;
}
