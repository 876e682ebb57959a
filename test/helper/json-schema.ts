/**
 * Whether a value is as a JSON Schema (2020-12) says: only the keywords that our descriptions use. Any other keyword is
 * an error, since what is not understood would be taken for met.
 */

type Schema = Readonly<Record<string, any>>;

const silent = new Set(['description', 'examples', 'default', 'title']);
const formats: Readonly<Record<string, RegExp>> = { 'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/, password: /^/ };

/** What is wrong, a line for each thing; none if it is as it says. @param root is what `$ref` is looked up in. */
export function schemaProblems(value: unknown, schema: Schema, root: Schema, at = ''): string[] {
  const problems: string[] = [];
  const say = (problem: string): void => void problems.push(`${at || '/'}: ${problem}`);
  const text = typeof value === 'string' ? value : undefined;
  const number = typeof value === 'number' ? value : undefined;
  const object = typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  for (const [keyword, wanted] of Object.entries(schema)) {
    switch (keyword) {
      case '$ref':
        problems.push(...schemaProblems(value, resolveReference(wanted, root), root, at));
        break;
      case 'allOf':
        for (const part of wanted) problems.push(...schemaProblems(value, part, root, at));
        break;
      case 'type':
        if (![wanted].flat().some((type: string) => isType(value, type))) say(`is not ${[wanted].flat().join(' or ')}`);
        break;
      case 'const':
        if (value !== wanted) say(`is not ${JSON.stringify(wanted)}`);
        break;
      case 'enum':
        if (!wanted.includes(value)) say(`is none of ${wanted.join(', ')}`);
        break;
      case 'properties':
        for (const [name, part] of Object.entries<Schema>(wanted)) {
          if (object !== undefined && Object.hasOwn(object, name)) problems.push(...schemaProblems(object[name], part, root, `${at}/${name}`));
        }
        break;
      case 'required':
        for (const name of wanted) if (object !== undefined && !Object.hasOwn(object, name)) say(`has no ${name}`);
        break;
      case 'additionalProperties':
        if (wanted !== false) throw new Error('additionalProperties is understood as false only');
        for (const name of Object.keys(object ?? {})) if (!Object.hasOwn(schema.properties ?? {}, name)) say(`has ${name}, which is not described`);
        break;
      case 'items':
        if (Array.isArray(value)) value.forEach((item, n) => problems.push(...schemaProblems(item, wanted, root, `${at}/${n}`)));
        break;
      case 'minItems':
        if (Array.isArray(value) && value.length < wanted) say(`has fewer than ${wanted} items`);
        break;
      case 'maxItems':
        if (Array.isArray(value) && value.length > wanted) say(`has more than ${wanted} items`);
        break;
      case 'minimum':
        if (number !== undefined && number < wanted) say(`is less than ${wanted}`);
        break;
      case 'maximum':
        if (number !== undefined && number > wanted) say(`is more than ${wanted}`);
        break;
      case 'minLength':
        if (text !== undefined && [...text].length < wanted) say(`is shorter than ${wanted}`);
        break;
      case 'maxLength':
        if (text !== undefined && [...text].length > wanted) say(`is longer than ${wanted}`);
        break;
      case 'pattern':
        if (text !== undefined && !new RegExp(wanted, 'u').test(text)) say(`is not as ${wanted}`);
        break;
      case 'format': {
        const format = formats[wanted];
        if (format === undefined) throw new Error(`format ${wanted} is not understood`);
        if (text !== undefined && !format.test(text)) say(`is no ${wanted}`);
        break;
      }
      default:
        if (!silent.has(keyword)) throw new Error(`the keyword ${keyword} is not understood`);
    }
  }
  return problems;
}

/** As in `#/components/schemas/User`. */
export function resolveReference(reference: string, root: Schema): any {
  let found: any = root;
  for (const part of reference.replace(/^#\//, '').split('/')) found = found?.[part];
  if (found === undefined) throw new Error(`${reference} leads nowhere`);
  return found;
}

function isType(value: unknown, type: string): boolean {
  switch (type) {
    case 'null': return value === null;
    case 'array': return Array.isArray(value);
    case 'object': return typeof value === 'object' && value !== null && !Array.isArray(value);
    case 'integer': return Number.isInteger(value);
    case 'string': case 'number': case 'boolean': return typeof value === type;
    default: throw new Error(`the type ${type} is not understood`);
  }
}
