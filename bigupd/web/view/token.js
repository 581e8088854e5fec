// Asks for a token when the server wants one.

import { words } from '../words/index.js';
import { $, setText, show } from './dom.js';
import { forget, keep } from './session.js';

/**
 * @param {import('../engine/queue.js').Queue} queue
 */
export function tokenView(queue) {
  const { server } = queue;
  const ask = () => {
    if (!$('token').hidden) return;
    setText($('token-hint'), words(server.token ? 'token_wrong' : 'token_hint'));
    show($('token'), true);
    $('token-input').focus();
  };
  const showFoot = () => {
    show($('token-change'), server.token !== '');
    setText($('token-change'), words('token_forget'));
  };
  $('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const token = $('token-input').value.trim();
    $('token-input').value = '';
    show($('token'), false);
    keep(token);
    queue.useToken(token);
    showFoot();
  });
  $('token-change').addEventListener('click', () => {
    forget();
    location.reload();
  });
  queue.addEventListener('token', ask);
  showFoot();
  return { ask };
}
