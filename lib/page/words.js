/**
 * The texts of the page. The English of the page and the code is the key of the Russian. What the service reports is translated
 * by the type of the problem and the field that it is about. This file touches no document.
 */

/** @type {Readonly<Record<string, string>>} */
export const russian = {
  'Sections': 'Разделы',
  'Sign in': 'Войти',
  'Create account': 'Зарегистрироваться',
  'Your account': 'Учётная запись',
  'Users': 'Пользователи',
  'Administration': 'Управление',
  'Sign out': 'Выйти',
  'Login': 'Логин',
  'Password': 'Пароль',
  'Show password': 'Показать пароль',
  'Show passwords': 'Показать пароли',
  'Keep me signed in': 'Оставаться в системе',
  'Forgot your password?': 'Забыли пароль?',
  'Ask the administrator for a link to choose a new one.': 'Попросите у администратора ссылку, чтобы выбрать новый.',
  "Letters of one alphabet, digits and . _ - @ + '. Upper and lower case are the same.":
    "Буквы одного алфавита, цифры и знаки . _ - @ + '. Заглавные и строчные не различаются.",
  'At least {min} characters. Avoid your login, common passwords and repeated characters.':
    'Не меньше {min} символов. Не подходят логин, распространённые пароли и повторы символов.',
  'Already have an account?': 'Уже есть учётная запись?',
  'Choose a password': 'Выберите пароль',
  'Save password': 'Сохранить пароль',
  'Change password': 'Сменить пароль',
  'Current password': 'Текущий пароль',
  'New password': 'Новый пароль',
  'Ends every session on this and all other devices.': 'Завершает все сеансы на этом и всех других устройствах.',
  'Sign out everywhere': 'Выйти везде',
  'Delete account': 'Удалить учётную запись',
  'This cannot be undone. Someone else may register the login afterwards.':
    'Это нельзя отменить. Логин потом сможет занять кто-то другой.',
  'Admin token': 'Токен администратора',
  'To print it on the server, run:': 'Чтобы вывести его на сервере, выполните:',
  'Continue': 'Продолжить',
  'Unauthenticated mode: every program on this machine may do everything. To protect the users, run:':
    'Режим без аутентификации: любой программе на этом компьютере разрешено всё. Чтобы защитить пользователей, выполните:',
  'Forget token': 'Забыть токен',
  'Find a login': 'Найти логин',
  'Find': 'Найти',
  'Add user': 'Добавить пользователя',
  'Invite with a link: the user chooses it': 'Пригласить по ссылке: пользователь выберет сам',
  'Set it now': 'Задать сейчас',
  'State': 'Состояние',
  'Actions': 'Действия',
  'Active': 'Активен',
  'Invited': 'Приглашён',
  'Disabled': 'Отключён',
  'Invitation link': 'Приглашение',
  'Reset link': 'Ссылка для сброса',
  'Enable': 'Включить',
  'Disable': 'Отключить',
  'Disable {login}?': 'Отключить {login}?',
  'Every session ends, and the user cannot sign in.': 'Все сеансы завершатся, и пользователь не сможет войти.',
  'Remove': 'Удалить',
  'Remove {login}?': 'Удалить {login}?',
  'No users.': 'Пользователей нет.',
  'Previous': 'Назад',
  'Next': 'Вперёд',
  'Page {page}': 'Страница {page}',
  'Cancel': 'Отмена',
  'Close': 'Закрыть',
  'Copy': 'Скопировать',
  'Copied.': 'Скопировано.',
  'Link': 'Ссылка',
  'Link for {login}': 'Ссылка для {login}',
  'It works once and is shown only now. Give it to the user over a channel that you trust.':
    'Она действует один раз и показана только сейчас. Передайте её пользователю надёжным путём.',
  'Valid until': 'Действует до',
  'Registered': 'Регистрация',
  'Password changed': 'Пароль изменён',
  'never': 'никогда',
  'Signed in until': 'Вход действует до',
  'Welcome, {login}. Your account has been created.': 'Добро пожаловать, {login}. Учётная запись создана.',
  'Your account has been created. Sign in.': 'Учётная запись создана. Войдите.',
  'You are signed in as {login}.': 'Вы вошли как {login}.',
  'Your password has been saved. You are signed in as {login}.': 'Пароль сохранён. Вы вошли как {login}.',
  'Your password has been changed. All other devices have been signed out.': 'Пароль изменён. На всех других устройствах выполнен выход.',
  'Your password has been changed. Sign in with the new one.': 'Пароль изменён. Войдите с новым паролем.',
  'You have signed out.': 'Вы вышли.',
  'You have signed out on all devices.': 'Вы вышли на всех устройствах.',
  'The account {login} has been deleted.': 'Учётная запись {login} удалена.',
  'Your session has ended. Sign in again.': 'Сеанс окончен. Войдите снова.',
  '{login} has been added.': 'Пользователь {login} добавлен.',
  '{login} has been removed.': 'Пользователь {login} удалён.',
  '{login} has been disabled.': 'Пользователь {login} отключён.',
  '{login} has been enabled.': 'Пользователь {login} включён.',
  'Every session of {login} has ended.': 'Все сеансы пользователя {login} завершены.',
  'The token has been forgotten.': 'Токен забыт.',
  'There is no user “{login}”.': 'Пользователя «{login}» нет.',
  'Please wait…': 'Подождите…',
  'Try again in {time}': 'Повторить через {time}',
  'You can try again now.': 'Можно повторить.',
  'Enter a value.': 'Заполните это поле.',
  'The password is wrong.': 'Пароль неверен.',
  'The admin token is wrong.': 'Токен администратора неверен.',
  'Characters: {length}': 'Символов: {length}',
  'Characters: {length}, at least {min} are required': 'Символов: {length}, нужно не меньше {min}',
  'You are offline. Try again when you are connected.': 'Нет сети. Повторите, когда она появится.',
  'Registrar cannot be reached. Try again.': 'Registrar недоступен. Повторите попытку.',
  'Registrar did not respond in time. Try again.': 'Registrar не ответил вовремя. Повторите попытку.',
  'The response did not come from Registrar. Try again.': 'Ответ пришёл не от Registrar. Повторите попытку.',
  'The password may or may not have been changed. If the old one does not work, try the new one.':
    'Неизвестно, изменён ли пароль. Если старый не подходит, попробуйте новый.',
};

/** By the last part of the type of a problem. @type {Readonly<Record<string, string>>} */
export const russianTypes = {
  'malformed': 'Запрос не удалось прочитать.',
  'invalid': 'Значение нарушает правило.',
  'unauthenticated': 'Нужно войти: логин, пароль или токен неверен либо устарел.',
  'forbidden': 'Это не разрешено.',
  'wrong-password': 'Пароль неверен.',
  'disabled': 'Эта учётная запись отключена. Обратитесь к администратору.',
  'invalid-link': 'Ссылка недействительна, уже использована или устарела. Попросите новую.',
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

/** By type and field. @type {Readonly<Record<string, string>>} */
export const russianFields = {
  'invalid #/login': 'Такой логин не подходит: нужны буквы одного алфавита, цифры и знаки . _ - @ + \'.',
  'invalid #/password': 'Такой пароль не подходит: он слишком короткий, распространённый или похож на логин.',
  'invalid #/current': 'Текущий пароль не подходит',
  'taken #/login': 'Этот логин занят',
  'wrong-password #/current': 'Пароль неверен',
};

/** @type {'en' | 'ru'} */
let language = 'en';

/**
 * Takes the first of the user's languages that there is, English if none.
 * @param {readonly string[]} languages as in `navigator.languages`
 */
export function chooseLanguage(languages) {
  const found = languages.map((tag) => tag.toLowerCase().split('-')[0]).find((tag) => tag === 'ru' || tag === 'en');
  language = found === 'ru' ? 'ru' : 'en';
  return language;
}

/** @param {string} english @param {Readonly<Record<string, unknown>>} [values] for the names in braces */
export function t(english, values = {}) {
  const text = language === 'ru' ? (russian[english] ?? english) : english;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * What the service has reported, in the language of the page.
 * @param {string} detail
 * @param {string} type as in `urn:registrar:taken`
 * @param {string} [pointer] of the field that it is about
 */
export function translated(detail, type, pointer) {
  if (language === 'en') return detail;
  const code = type.replace(/^urn:registrar:/, '');
  return (pointer === undefined ? undefined : russianFields[`${code} ${pointer}`]) ?? russianTypes[code] ?? detail;
}
