// Sizes, rates and times in the visitor's language.

import { language, words } from '../words/index.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** 1536 is `1.5 KiB`. */
export function size(bytes) {
  let unit = 0;
  let value = bytes;
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${number(value, digits)} ${UNITS[unit]}`;
}

/** Bytes per second. */
export function rate(bytes) {
  return `${size(bytes)}/s`;
}

function number(value, digits) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

/** 0.5 is `50%`. Only the whole is 100 %. */
export function share(part) {
  const floored = part >= 1 ? 1 : Math.floor(part * 100) / 100;
  return new Intl.NumberFormat(language, { style: 'percent' }).format(floored);
}

/** 4000 seconds are `1 h 6 min`. */
export function time(seconds) {
  if (!Number.isFinite(seconds)) return '…';
  const of = (count, unit) => `${count} ${words(unit)}`;
  const both = (more, unit, rest, lessUnit) => (rest ? `${of(more, unit)} ${of(rest, lessUnit)}` : of(more, unit));
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return of(whole, 'unit_seconds');
  const minutes = Math.floor(whole / 60);
  if (minutes < 10) return both(minutes, 'unit_minutes', whole % 60, 'unit_seconds');
  if (minutes < 60) return of(minutes, 'unit_minutes');
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return both(hours, 'unit_hours', minutes % 60, 'unit_minutes');
  return both(Math.floor(hours / 24), 'unit_days', hours % 24, 'unit_hours');
}

/** A moment like `2030-01-31T12:00:00Z`. */
export function moment(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  return new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(date);
}
