/**
 * The page's words. English stands in the page and in the code, and is the key to the Russian; what the service says in
 * English is found again by its pattern, else by the problem's type, else left as it is. It touches no document.
 */

/** @type {Readonly<Record<string, string>>} */
export const russian = {
  'Sections': 'Разделы',
  'Sign in': 'Вход',
  'Create an account': 'Регистрация',
  'Sign in (button)': 'Войти',
  'Create an account (button)': 'Зарегистрироваться',
  'Your account': 'Учётная запись',
  'Administration': 'Управление',
  'Login': 'Логин',
  'Password': 'Пароль',
  'Show the password': 'Показать пароль',
  'Show the passwords': 'Показать пароли',
  'No account yet?': 'Ещё нет учётной записи?',
  'You have one?': 'Уже есть учётная запись?',
  '1 to 64 letters, digits and . _ - @ +, the letters of one script. Capitals make no difference.':
    'От 1 до 64 букв одного алфавита, цифр и знаков . _ - @ +. Заглавные и строчные не различаются.',
  '{min} to {max} characters of any kind, not the login and not a common password. A few words with spaces do well.':
    'От {min} до {max} любых символов, но не логин и не распространённый пароль. Хорошо подойдут несколько слов через пробел.',
  'Create the account': 'Зарегистрироваться',
  'Change the password': 'Сменить пароль',
  'Current password': 'Текущий пароль',
  'New password': 'Новый пароль',
  'Sign out': 'Выход',
  'On this device and on all others.': 'На этом устройстве и на всех остальных.',
  'Sign out everywhere': 'Выйти везде',
  'Delete the account': 'Удалить учётную запись',
  'At once and for good. Anybody may take the login then.': 'Сразу и навсегда. Логин сможет занять кто угодно.',
  'Admin token': 'Токен администратора',
  'It is kept in the memory of this page alone, until you leave or reload it.':
    'Он остаётся только в памяти этой страницы, пока вы её не закроете или не обновите.',
  'Continue': 'Продолжить',
  'Open mode: anybody on this machine may do everything here. To close it, make a token: registrar token':
    'Открытый режим: на этом компьютере любой может делать здесь всё. Чтобы закрыть его, создайте токен: registrar token',
  'Forget the token': 'Забыть токен',
  'Find a user': 'Найти пользователя',
  'Find': 'Найти',
  'Found': 'Найдено',
  'Add a user': 'Добавить пользователя',
  'Add': 'Добавить',
  'There are no users here.': 'Здесь нет пользователей.',
  'Previous page': 'Предыдущая страница',
  'Next page': 'Следующая страница',
  'Cancel': 'Отмена',
  'Remove': 'Удалить',

  'Users': 'Пользователи',
  'Users, page {page}': 'Пользователи, страница {page}',
  'Remove {login}': 'Удалить {login}',
  'Remove {login}?': 'Удалить {login}?',
  'No. {id}, registered {date}': '№ {id}, регистрация: {date}',
  'Number': 'Номер',
  'Registered': 'Регистрация',
  'Password changed': 'Пароль изменён',
  'never': 'ни разу',
  'Signed in until': 'Вход действует до',
  'Welcome, {login}. The account is made, and you are signed in.': 'Добро пожаловать, {login}. Учётная запись создана, вход выполнен.',
  'The account is made. Sign in now.': 'Учётная запись создана. Теперь войдите.',
  'You are signed in as {login}.': 'Вы вошли как {login}.',
  'The password was changed. All other devices were signed out.': 'Пароль изменён. На всех остальных устройствах выполнен выход.',
  'The password was changed. Sign in with the new one.': 'Пароль изменён. Войдите с новым паролем.',
  'You are signed out, on this device and on all others.': 'Вы вышли на этом устройстве и на всех остальных.',
  'The account of {login} is deleted.': 'Учётная запись {login} удалена.',
  'The session has ended. Sign in again.': 'Сеанс окончен. Войдите снова.',
  '{login} was added.': 'Пользователь {login} добавлен.',
  '{login} was removed.': 'Пользователь {login} удалён.',
  'The token is forgotten.': 'Токен забыт.',
  'There is no user “{login}”.': 'Пользователя «{login}» нет.',
  'One moment…': 'Минуту…',
  'Try again in {time}': 'Повторить через {time}',
  'You can try again now.': 'Можно повторить.',
  'Fill this in': 'Заполните это поле',
  'The password is wrong': 'Пароль неверен',
  'The admin token is wrong': 'Токен администратора неверен',
  'It will be kept as “{login}”': 'Будет сохранён как «{login}»',
  'Characters: {length}': 'Символов: {length}',
  'Characters: {length}, at least {min} are needed': 'Символов: {length}, нужно не меньше {min}',
  'You are offline: there is no network. Nothing was lost; try again when it is back.':
    'Нет сети. Ничего не потеряно: повторите, когда она появится.',
  'Registrar cannot be reached: it may be stopped, or something in between refuses. Try again.':
    'Registrar недоступен: возможно, он остановлен или соединение что-то запрещает. Повторите попытку.',
  'Registrar did not answer in time. Try again.': 'Registrar не ответил вовремя. Повторите попытку.',
  'What came back is no answer of Registrar’s: something in between has sent it.':
    'Пришёл ответ не от Registrar, а от кого-то на пути к нему.',
  'Whether it was done is not known: if you cannot sign in with the old password, try the new one.':
    'Неизвестно, выполнено ли это: если не удаётся войти со старым паролем, попробуйте новый.',
  'The login is empty: it needs 1 to 64 characters': 'Логин пуст: нужно от 1 до 64 символов',
  'The login is longer than 64 characters': 'Логин длиннее 64 символов',
  'The login may hold letters, digits and . _ - @ + only': 'В логине могут быть только буквы, цифры и знаки . _ - @ +',
  'The login needs at least one letter or digit': 'В логине нужна хотя бы одна буква или цифра',
  'The login mixes letters of several scripts: use letters of one, since many look alike':
    'В логине смешаны буквы разных алфавитов: пишите буквами одного, ведь многие выглядят одинаково',
  'The login has no stable normal form: spell it in another way': 'Такой логин записывается неоднозначно: напишите его иначе',
  'The login holds half a surrogate pair: it is not Unicode text': 'Логин содержит половину суррогатной пары: это не текст Юникода',
  'The password has {length} characters: it needs at least {min}': 'Символов в пароле: {length}, а нужно не меньше {min}',
  'The password has {length} characters: it may have at most {max}': 'Символов в пароле: {length}, а можно не больше {max}',
  'The password is longer than {max} characters': 'Пароль длиннее, чем символов: {max}',
  'The password holds a control character, such as a tab: leave it out':
    'В пароле есть управляющий символ, например табуляция: уберите его',
  'The password holds half a surrogate pair: it is not Unicode text': 'Пароль содержит половину суррогатной пары: это не текст Юникода',
  'The password is the login': 'Пароль совпадает с логином',
  'The password is on the list of common passwords': 'Этот пароль слишком распространён',
  'The login or the password is wrong': 'Логин или пароль неверен',
  'The login "{login}" is taken': 'Логин «{login}» занят',
  'It is taken': 'Он занят',
  'It is not the password of this user': 'Это не пароль этого пользователя',
  'Only the admin token may register users here': 'Регистрировать пользователей здесь может только администратор',
  'Too many registrations from this address: try again in {time} s': 'Слишком много регистраций с этого адреса: повторите через {time} с',
  'Too many wrong passwords from this address: try again in {time} s':
    'Слишком много неверных паролей с этого адреса: повторите через {time} с',
  'Too many wrong passwords for this login: try again in {time} s':
    'Слишком много неверных паролей для этого логина: повторите через {time} с',
};

/**
 * By the last part of a problem's type, where nothing is known of its detail.
 * @type {Readonly<Record<string, string>>}
 */
export const russianTypes = {
  'malformed': 'Запрос не удалось прочитать.',
  'invalid': 'Значение нарушает правило.',
  'unauthenticated': 'Нужно войти: логин, пароль или токен неверен либо устарел.',
  'forbidden': 'Это не разрешено.',
  'wrong-password': 'Пароль неверен.',
  'not-found': 'Такого здесь нет.',
  'method-not-allowed': 'Так с этим поступить нельзя.',
  'timeout': 'Запрос шёл слишком долго. Повторите попытку.',
  'taken': 'Этот логин занят.',
  'conflict': 'Другой запрос успел раньше. Посмотрите, что изменилось, и повторите.',
  'precondition-failed': 'Пользователь тем временем изменился. Посмотрите на него ещё раз.',
  'too-large': 'Запрос слишком велик.',
  'unsupported-media-type': 'Тип запроса не поддерживается.',
  'expectation-failed': 'Запрос ждёт невозможного.',
  'key-reused': 'Этот запрос уже был отправлен с другим паролем.',
  'headers-too-large': 'Заголовки запроса слишком велики.',
  'rate-limited': 'Слишком много запросов. Подождите немного.',
  'overloaded': 'Служба занята. Подождите немного.',
  'busy': 'Хранилище занято. Подождите немного.',
  'outcome-unknown': 'Неизвестно, выполнено ли это. Проверьте и при необходимости повторите.',
  'unavailable': 'Служба сейчас недоступна.',
  'storage-full': 'На сервере закончилось место.',
  'internal': 'Сбой службы: подробности в её журнале.',
  'corrupt': 'Хранилище повреждено: подробности в журнале службы.',
};

/** Where the detail is not known: by type and field. @type {Readonly<Record<string, string>>} */
export const russianFields = {
  'invalid #/login': 'Такой логин не подходит',
  'invalid #/password': 'Такой пароль не подходит',
  'invalid #/current': 'Текущий пароль не подходит',
  'taken #/login': 'Этот логин занят',
  'wrong-password #/current': 'Пароль неверен',
};

/** @type {'en' | 'ru'} */
let language = 'en';

/**
 * Takes the first of the reader's languages that there is, English if none.
 * @param {readonly string[]} languages as in `navigator.languages`
 */
export function chooseLanguage(languages) {
  const found = languages.map((tag) => tag.toLowerCase().split('-')[0]).find((tag) => tag === 'ru' || tag === 'en');
  language = found === 'ru' ? 'ru' : 'en';
  return language;
}

/**
 * @param {string} english
 * @param {Readonly<Record<string, string | number>>} [values] for the names in braces
 * @param {string} [use] where the same English is another word: `button`
 */
export function t(english, values = {}, use = '') {
  const text = language === 'ru' ? (russian[`${english} (${use})`] ?? russian[english] ?? english) : english;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

const patterns = Object.keys(russian)
  .filter((english) => english.includes('{'))
  .map((english) => {
    const names = [...english.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name);
    const source = english.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{\w+\}/g, '(.+)');
    return { english, names, pattern: new RegExp(`^${source}$`, 'su') };
  });

/**
 * What the service has said, in the page's language.
 * @param {string} detail
 * @param {string} type as in `urn:registrar:taken`
 * @param {string} [pointer] of the field that it is about
 */
export function translated(detail, type, pointer) {
  if (language === 'en') return detail;
  if (russian[detail] !== undefined) return t(detail);
  for (const { english, names, pattern } of patterns) {
    const found = pattern.exec(detail);
    if (found !== null) return t(english, Object.fromEntries(names.map((name, n) => [name, found[n + 1] ?? ''])));
  }
  const code = type.replace(/^urn:registrar:/, '');
  return (pointer === undefined ? undefined : russianFields[`${code} ${pointer}`]) ?? russianTypes[code] ?? detail;
}
