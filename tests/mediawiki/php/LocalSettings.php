<?php
// Settings of the fixture wiki. What differs from run to run comes from the environment: FX_ROOT, FX_PORT, FX_SECRET,
// FX_LANGUAGE, FX_CAPITAL_LINKS.
if ( !defined( 'MEDIAWIKI' ) ) {
	exit;
}
error_reporting( E_ALL & ~E_DEPRECATED & ~E_USER_DEPRECATED );
$fxRoot = getenv( 'FX_ROOT' );

$wgSitename = 'Paper Kids (fixture)';
$wgMetaNamespace = 'Fixture';
$wgServer = 'http://127.0.0.1:' . getenv( 'FX_PORT' );
$wgCanonicalServer = $wgServer;
$wgScriptPath = '';
$wgArticlePath = '/wiki/$1';
$wgUsePathInfo = true;
$wgResourceBasePath = '';
$wgSecretKey = getenv( 'FX_SECRET' );
$wgUpgradeKey = '0123456789abcdef';
$wgLanguageCode = getenv( 'FX_LANGUAGE' ) ?: 'en';
$wgCapitalLinks = getenv( 'FX_CAPITAL_LINKS' ) !== '0';
$wgLocaltimezone = 'UTC';
$wgDefaultSkin = 'vector';
$wgRightsUrl = 'https://www.fandom.com/licensing';
$wgRightsText = 'CC-BY-SA';
$wgMemoryLimit = '512M';

// sqlite without fsync: a fixture that is lost is made again.
$wgDBtype = 'sqlite';
$wgDBname = 'wiki';
$wgSQLiteDataDir = "$fxRoot/db";
$wgDBserver = $wgDBuser = $wgDBpassword = '';
$wgDBservers = [ [
	'type' => 'sqlite', 'dbname' => 'wiki', 'dbDirectory' => $wgSQLiteDataDir,
	'variables' => [ 'synchronous' => 'OFF' ], 'load' => 1, 'flags' => DBO_DEFAULT,
] ];
$wgObjectCaches['fixture'] = [
	'class' => SqlBagOStuff::class, 'loggroup' => 'SQLBagOStuff',
	'server' => [
		'type' => 'sqlite', 'dbname' => 'wikicache', 'tablePrefix' => '', 'dbDirectory' => $wgSQLiteDataDir,
		'variables' => [ 'synchronous' => 'NORMAL' ], 'trxMode' => 'IMMEDIATE', 'flags' => 0,
	],
];
$wgMainCacheType = $wgMessageCacheType = CACHE_NONE;
$wgParserCacheType = $wgSessionCacheType = 'fixture';
$wgCacheDirectory = "$fxRoot/cache";
$wgLocalisationCacheConf['store'] = 'array';
$wgLocalisationCacheConf['storeDirectory'] = "$fxRoot/cache";
$wgJobRunRate = 0;
$wgDisableCounters = true;
$wgEnableEmail = false;
$wgPingback = false;
$wgDiff3 = '';
$wgShellRestrictionMethod = false;
$wgMaxShellMemory = 0;

// Any file is taken as it is: JPEG bytes under a .png name too, as on real wikis.
$wgEnableUploads = true;
$wgUploadDirectory = "$fxRoot/images";
$wgUploadPath = '/images';
$wgTmpDirectory = "$fxRoot/tmp";
$wgFileExtensions = [ 'png', 'gif', 'jpg', 'jpeg', 'webp', 'svg', 'pdf', 'ogg', 'ogv' ];
$wgVerifyMimeType = false;
$wgStrictFileExtensions = false;
$wgMaxUploadSize = 1 << 30;
$wgMaxImageArea = 4e8;
$wgUseImageMagick = false;
$wgSVGConverter = false;
$wgSVGConverters = [];
$wgGenerateThumbnailOnParse = false;
$wgResponsiveImages = false;

$wgExtraNamespaces[100] = 'Portal';
$wgExtraNamespaces[101] = 'Portal_talk';
$wgContentNamespaces[] = 100;

wfLoadSkin( 'Vector' );
wfLoadExtension( 'ParserFunctions' );
wfLoadExtension( 'Cite' );

$wgLocalFileRepo = [
	'class' => 'FandomRepo', 'name' => 'local', 'directory' => $wgUploadDirectory, 'scriptDirUrl' => '',
	'url' => "$wgServer/images", 'hashLevels' => 2, 'thumbScriptUrl' => false, 'transformVia404' => true,
	'deletedDir' => "$fxRoot/images/deleted", 'deletedHashLevels' => 3, 'backend' => 'local-backend',
];
require __DIR__ . '/fandomlike.php';
